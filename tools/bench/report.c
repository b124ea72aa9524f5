#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

void row_add(struct row *row, double ours, double theirs) {
    if (row->n == REPETITIONS_MAX)
        return;
    row->ours[row->n] = ours;
    row->theirs[row->n] = theirs;
    row->n++;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread {
    double median, least, most;
};

/* n > 0 */
static struct spread spread_of(const double *values, int n) {
    double sorted[REPETITIONS_MAX];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return (struct spread){
        .median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2,
        .least = sorted[0],
        .most = sorted[n - 1],
    };
}

/* Each repetition's figure over the reference measured just before it: the machine's own changes
 * cancel out. */
static struct spread ratio_of(const struct row *row) {
    double ratios[REPETITIONS_MAX];
    for (int i = 0; i < row->n; i++)
        ratios[i] = row->reference ? row->ours[i] / row->theirs[i] : row->ours[i];
    return spread_of(ratios, row->n);
}

bool row_met(const struct row *row) {
    if (row->n == 0 || row->aim == NO_AIM)
        return false;
    double ratio = ratio_of(row).median;
    return row->aim == AT_LEAST ? ratio >= row->target : ratio <= row->target;
}

static const char *unit_of(const struct row *row) {
    return row->unit ? row->unit : "ns";
}

static const char *sign_of(const struct row *row) {
    return row->aim == AT_LEAST ? ">=" : "<=";
}

/* ---- table */

static const char *cell(char *to, size_t room, const double *values, int n, const char *unit) {
    if (n == 0)
        return "-";
    struct spread s = spread_of(values, n);
    snprintf(to, room, "%.4g [%.4g..%.4g] %s", s.median, s.least, s.most, unit);
    return to;
}

static void table_row(FILE *to, const struct row *row) {
    char ours[64], theirs[64], both[128] = "-", ratio[64] = "-", target[32] = "";
    if (row->reference)
        snprintf(both, sizeof both, "%s: %s", row->reference,
                 cell(theirs, sizeof theirs, row->theirs, row->n, ""));
    if (row->reference && row->n > 0) {
        struct spread s = ratio_of(row);
        snprintf(ratio, sizeof ratio, "%.3g [%.3g..%.3g]", s.median, s.least, s.most);
    }
    if (row->aim != NO_AIM)
        snprintf(target, sizeof target, "%s %g %s", sign_of(row), row->target,
                 row_met(row) ? "met" : "NOT MET");
    fprintf(to, "%-40s %-31s %-53s %-20s %s\n", row->work,
            cell(ours, sizeof ours, row->ours, row->n, unit_of(row)), both, ratio, target);
}

void report_table(FILE *to, const struct row *rows, size_t n) {
    fprintf(to, "%-40s %-31s %-53s %-20s %s\n", "work", "ours, median [min..max]", "reference",
            "ratio", "target");
    for (size_t i = 0; i < n; i++)
        table_row(to, &rows[i]);
}

void report_check(FILE *to, const struct row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct row *row = &rows[i];
        if (row->aim == NO_AIM)
            continue;
        fprintf(to, "%s: %s: ", row_met(row) ? "met" : "not met", row->work);
        if (row->n == 0) {
            fprintf(to, "not measured\n");
            continue;
        }
        fprintf(to, "ours %.4g %s, ", spread_of(row->ours, row->n).median, unit_of(row));
        if (row->reference)
            fprintf(to, "%s %.4g, ratio %.3g, ", row->reference,
                    spread_of(row->theirs, row->n).median, ratio_of(row).median);
        fprintf(to, "target %s %g\n", sign_of(row), row->target);
    }
}

/* ---- JSON */

static void json_spread(FILE *to, const char *key, const struct spread *s) {
    fprintf(to, ", \"%s\": {\"median\": %.6g, \"min\": %.6g, \"max\": %.6g}", key, s->median,
            s->least, s->most);
}

static void json_values(FILE *to, const char *key, const double *values, int n) {
    fprintf(to, ", \"%s\": [", key);
    for (int i = 0; i < n; i++)
        fprintf(to, "%s%.6g", i ? ", " : "", values[i]);
    fprintf(to, "]");
}

static void json_row(FILE *to, const struct row *row) {
    /* ids, works, units and references are our own literals: nothing in them needs escaping */
    fprintf(to, "{\"id\": \"%s\", \"work\": \"%s\", \"unit\": \"%s\"", row->id, row->work,
            unit_of(row));
    fprintf(to, ", \"repetitions\": %d", row->n);
    if (row->n > 0) {
        struct spread ours = spread_of(row->ours, row->n);
        json_spread(to, "ours", &ours);
        json_values(to, "ours_each", row->ours, row->n);
        if (row->p99[0] > 0) {
            struct spread p99 = spread_of(row->p99, row->n);
            json_spread(to, "ours_p99", &p99);
        }
    }
    if (row->reference) {
        fprintf(to, ", \"reference_name\": \"%s\"", row->reference);
        if (row->n > 0) {
            struct spread theirs = spread_of(row->theirs, row->n), ratio = ratio_of(row);
            json_spread(to, "reference", &theirs);
            json_values(to, "reference_each", row->theirs, row->n);
            json_spread(to, "ratio", &ratio);
        }
    }
    if (row->aim != NO_AIM)
        fprintf(to, ", \"target\": %g, \"target_is\": \"%s\", \"met\": %s", row->target,
                sign_of(row), row_met(row) ? "true" : "false");
    fprintf(to, ", \"lost\": %llu}", (unsigned long long)row->lost);
}

void report_json(FILE *to, const struct bench *b, const struct row *rows, size_t n) {
    struct utsname machine = { 0 };
    uname(&machine);
    fprintf(to, "{\"version\": \"%s\", \"kernel\": \"%s\", \"machine\": \"%s\"", shmps_version(),
            machine.release, machine.machine);
    fprintf(to, ", \"repetitions\": %d, \"quick\": %s, \"rows\": [\n", b->repetitions,
            b->quick ? "true" : "false");
    for (size_t i = 0; i < n; i++) {
        json_row(to, &rows[i]);
        fprintf(to, "%s\n", i + 1 < n ? "," : "");
    }
    fprintf(to, "]}\n");
}
