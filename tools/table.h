/* table.h - aligned columns, the same on a terminal and on a pipe: two spaces between cells. */
#ifndef SHMPS_TOOL_TABLE_H
#define SHMPS_TOOL_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table {
    const char *const *titles; /* ">TITLE": its column is aligned to the right */
    size_t columns;
    char **cells; /* row by row */
    size_t n_cells, room;
};

#define TABLE(array) { .titles = (array), .columns = sizeof(array) / sizeof((array)[0]) }

/* Add the next cell (printf format), from left to right, row by row. What others wrote goes
 * through text_escape() before. */
__attribute__((format(printf, 2, 3))) void table_add(struct table *table, const char *format, ...);

/* The same, with bytes as size_text() tells them. */
void table_add_size(struct table *table, uint64_t bytes);

/* Print it on stdout, each line behind `indent`, and free its cells. All rows are complete. */
void table_print(struct table *table, const char *indent);

#endif
