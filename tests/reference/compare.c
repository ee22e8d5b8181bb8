/* compare.c - a trainer's log against reference numbers.
 *
 * usage: reference_compare LOG.jsonl REFERENCE.json [bf16]
 *
 * In: one object a step, and {"loss": […], "grad_norm": […]}, which may hold such an object
 * again as "bf16". Exit code 0 when the log has as many steps and every loss and every norm is
 * within its limit, relative; 1, with the first step that is not, otherwise; 2 for files that
 * cannot be read.
 *
 * The limits are LOSS_LIMIT and NORM_LIMIT. With bf16 the numbers are still those of f32, and
 * the limits are HALF_FACTOR times the largest distance that those of "bf16" have from them: two
 * programs that round at different places are not nearer to each other than to the truth.
 */
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double LOSS_LIMIT = 1e-4, NORM_LIMIT = 1e-3, HALF_FACTOR = 2;

typedef struct {
    const char *key;
    double limit, worst;
} Column;

/* The distance of two numbers in units of the second; not a number where one is missing. */
static double distance(const json_t *have, const json_t *want)
{
    if (!json_is_number(have) || !json_is_number(want))
        return NAN;
    double x = json_number_value(have), y = json_number_value(want);
    return fabs(x - y) / fabs(y);
}

static int compare_step(Column *c, const json_t *line, const json_t *reference, size_t step)
{
    const json_t *have = json_object_get(line, c->key);
    const json_t *want = json_array_get(json_object_get(reference, c->key), step);
    if (!json_is_number(have) || !json_is_number(want)) {
        fprintf(stderr, "step %zu: %s is missing\n", step + 1, c->key);
        return 1;
    }
    double error = distance(have, want);
    if (!(error <= c->worst))
        c->worst = error;
    if (error <= c->limit)
        return 0;
    fprintf(stderr, "step %zu: %s is %.9g, the reference %.9g: off by %.1e (limit %.0e)\n",
            step + 1, c->key, json_number_value(have), json_number_value(want), error, c->limit);
    return 1;
}

static int compare_all(FILE *log, const json_t *reference, Column columns[2])
{
    size_t steps = json_array_size(json_object_get(reference, "loss")), step = 0;
    char line[4096];
    for (int bad = 0; fgets(line, sizeof line, log); step++) {
        json_t *object = json_loads(line, 0, NULL);
        for (int i = 0; i < 2; i++)
            bad |= compare_step(&columns[i], object, reference, step);
        json_decref(object);
        if (bad)
            return 1;
    }
    if (steps == 0 || step != steps) {
        fprintf(stderr, "the log has %zu steps, the reference %zu\n", step, steps);
        return 1;
    }
    printf("%zu steps, loss within %.1e of %.1e, grad_norm within %.1e of %.1e\n", steps,
           columns[0].worst, columns[0].limit, columns[1].worst, columns[1].limit);
    return 0;
}

/* Limits from the reference's own bf16. false: it has none, or not for every step. */
static bool limits_half(const json_t *reference, Column columns[2])
{
    const json_t *half = json_object_get(reference, "bf16");
    for (int i = 0; i < 2; i++) {
        const json_t *full = json_object_get(reference, columns[i].key);
        double most = 0;
        for (size_t step = 0; step < json_array_size(full); step++) {
            double d = distance(json_array_get(json_object_get(half, columns[i].key), step),
                                json_array_get(full, step));
            if (isnan(d))
                return false;
            most = fmax(most, d);
        }
        columns[i].limit = HALF_FACTOR * most;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 3 && (argc != 4 || strcmp(argv[3], "bf16") != 0)) {
        fprintf(stderr, "usage: reference_compare LOG.jsonl REFERENCE.json [bf16]\n");
        return 2;
    }
    Column columns[] = {{"loss", LOSS_LIMIT, 0}, {"grad_norm", NORM_LIMIT, 0}};
    json_error_t error;
    json_t *reference = json_load_file(argv[2], 0, &error);
    FILE *log = fopen(argv[1], "r");
    int code = 2;
    if (!reference)
        fprintf(stderr, "%s: %s\n", argv[2], error.text);
    else if (!log)
        perror(argv[1]);
    else if (argc == 4 && !limits_half(reference, columns))
        fprintf(stderr, "%s has no numbers of bf16 for every step\n", argv[2]);
    else
        code = compare_all(log, reference, columns);
    if (log)
        fclose(log);
    json_decref(reference);
    return code;
}
