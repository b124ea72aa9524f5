/* shmps doctor - what is wrong with this machine, this bus, and how it is mended. A viewer, that
 * connects for a moment to a daemon that holds the instance's lock. */
#include "doctor.h"
#include "text.h"
#include "tool.h"

#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const verdicts[] = { "OK", "WARN", "FAIL" };

static void print_json(enum verdict verdict, const char *check, struct remedy remedy,
                       const char *what) {
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "verdict", json_object_new_string(verdicts[verdict]));
    json_object_object_add(o, "check", json_object_new_string(check));
    json_object_object_add(o, "what", json_text(what));
    if (remedy.why)
        json_object_object_add(o, "why", json_text(remedy.why));
    if (remedy.mend)
        json_object_object_add(o, "mend", json_text(remedy.mend));
    json_print(o);
}

static void print_line(enum verdict verdict, const char *check, struct remedy remedy,
                       const char *what) {
    char *line;
    if (asprintf(&line, "%s%s%s%s%s", what, remedy.why ? ": " : "", remedy.why ? remedy.why : "",
                 remedy.mend ? "; mend: " : "", remedy.mend ? remedy.mend : "") < 0)
        out_of_memory();
    char *escaped = text_escape(line);
    printf("%-4s  %-18s  %s\n", verdicts[verdict], check, escaped);
    free(escaped);
    free(line);
}

void finding(struct doctor *doctor, enum verdict verdict, const char *check, struct remedy remedy,
             const char *format, ...) {
    char *what;
    va_list list;
    va_start(list, format);
    if (vasprintf(&what, format, list) < 0)
        out_of_memory();
    va_end(list);
    doctor->failed = doctor->failed || verdict == VERDICT_FAIL;
    (doctor->json ? print_json : print_line)(verdict, check, remedy, what);
    free(what);
}

enum exit_code cmd_doctor(const struct arguments *args) {
    struct doctor doctor = { .json = args->json };
    doctor_system(&doctor);
    doctor_kernel(&doctor);
    doctor_bus(&doctor, args->instance);
    return doctor.failed ? EXIT_ERROR : EXIT_DONE;
}
