#include "table.h"
#include "text.h"
#include "tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void table_add(struct table *table, const char *format, ...) {
    if (table->n_cells == table->room) {
        table->room = table->room ? 2 * table->room : 64;
        table->cells = reallocarray(table->cells, table->room, sizeof(*table->cells));
        if (!table->cells)
            out_of_memory();
    }
    va_list list;
    va_start(list, format);
    if (vasprintf(&table->cells[table->n_cells], format, list) < 0)
        out_of_memory();
    va_end(list);
    table->n_cells++;
}

void table_add_size(struct table *table, uint64_t bytes) {
    char text[SIZE_TEXT_BYTES];
    size_text(bytes, text);
    table_add(table, "%s", text);
}

/* What a text takes of a line: its characters. (One of double width pushes the rest.) */
static size_t text_width(const char *text) {
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static const char *title_text(const char *title) {
    return title[0] == '>' ? title + 1 : title;
}

static size_t column_width(const struct table *table, size_t column) {
    size_t width = text_width(title_text(table->titles[column]));
    for (size_t i = column; i < table->n_cells; i += table->columns) {
        size_t cell = text_width(table->cells[i]);
        width = cell > width ? cell : width;
    }
    return width;
}

/* `cells` NULL: the titles. */
static void print_row(const struct table *table, char *const *cells, const size_t *widths,
                      const char *indent) {
    fputs(indent, stdout);
    for (size_t c = 0; c < table->columns; c++) {
        const char *text = cells ? cells[c] : title_text(table->titles[c]);
        size_t padding = widths[c] - text_width(text);
        bool right = table->titles[c][0] == '>', last = c + 1 == table->columns;
        int before = right ? (int)padding : 0, after = right || last ? 0 : (int)padding;
        printf("%*s%s%*s%s", before, "", text, after, "", last ? "\n" : "  ");
    }
}

void table_print(struct table *table, const char *indent) {
    size_t *widths = calloc(table->columns, sizeof(*widths));
    if (!widths)
        out_of_memory();
    for (size_t c = 0; c < table->columns; c++)
        widths[c] = column_width(table, c);
    print_row(table, NULL, widths, indent);
    for (size_t i = 0; i < table->n_cells; i += table->columns)
        print_row(table, table->cells + i, widths, indent);
    for (size_t i = 0; i < table->n_cells; i++)
        free(table->cells[i]);
    free(table->cells);
    free(widths);
    table->cells = NULL;
    table->n_cells = table->room = 0;
}
