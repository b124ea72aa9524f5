#include "record.h"
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

uint64_t record_hash(const void *data, size_t bytes) {
    return XXH3_64bits(data, bytes);
}

int record_open(struct record *record, const char *path, const char *heading) {
    *record = (struct record){.file = fopen(path, "we")};
    if (record->file == NULL)
        return -1;
    return fprintf(record->file, "# shmps-demo %s\n", heading) < 0 ? -1 : 0;
}

int record_add(struct record *record, const struct record_line *line) {
    record->lines++;
    int n = fprintf(record->file,
                    "%s %" PRIx64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %016" PRIx64 "\n",
                    line->topic, line->publisher, line->seq, line->bytes, line->tag, line->hash);
    return n < 0 ? -1 : 0;
}

int record_close(struct record *record) {
    int written = fprintf(record->file, "# end %" PRIu64 "\n", record->lines);
    int closed = fclose(record->file);
    return written < 0 || closed != 0 ? -1 : 0;
}

int record_parse(char *text, struct record_line *ret) {
    /* From the right, as a topic may hold blanks. */
    char *field[5];
    for (int i = 4; i >= 0; i--) {
        char *blank = strrchr(text, ' ');
        if (blank == NULL)
            return -1;
        *blank = '\0';
        field[i] = blank + 1;
    }
    *ret = (struct record_line){.topic = text};
    const struct {
        uint64_t *value;
        int base;
    } target[5] = {{&ret->publisher, 16},
                   {&ret->seq, 10},
                   {&ret->bytes, 10},
                   {&ret->tag, 10},
                   {&ret->hash, 16}};
    for (int i = 0; i < 5; i++) {
        const char *format = target[i].base == 16 ? "%" SCNx64 "%n" : "%" SCNu64 "%n";
        int used = 0;
        if (sscanf(field[i], format, target[i].value, &used) != 1 || field[i][used] != '\0')
            return -1;
    }
    return 0;
}
