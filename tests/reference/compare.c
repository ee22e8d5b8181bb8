/* compare.c - a trainer's log against reference numbers.
 *
 * usage: reference_compare LOG.jsonl REFERENCE.json
 *
 * In: one object a step, and {"loss": […], "grad_norm": […]}. Exit code 0 when the log has as
 * many steps and every loss is within LOSS_LIMIT, every norm within NORM_LIMIT, relative;
 * 1, with the first step that is not, otherwise; 2 for files that cannot be read.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double LOSS_LIMIT = 1e-4, NORM_LIMIT = 1e-3;

typedef struct {
    const char *key;
    double limit, worst;
} Column;

static int compare_step(Column *c, const json_t *line, const json_t *reference, size_t step)
{
    const json_t *have = json_object_get(line, c->key);
    const json_t *want = json_array_get(json_object_get(reference, c->key), step);
    if (!json_is_number(have) || !json_is_number(want)) {
        fprintf(stderr, "step %zu: %s is missing\n", step + 1, c->key);
        return 1;
    }
    double x = json_number_value(have), y = json_number_value(want), error = fabs(x - y) / fabs(y);
    if (!(error <= c->worst))
        c->worst = error;
    if (error <= c->limit)
        return 0;
    fprintf(stderr, "step %zu: %s is %.9g, the reference %.9g: off by %.1e (limit %.0e)\n",
            step + 1, c->key, x, y, error, c->limit);
    return 1;
}

static int compare_all(FILE *log, const json_t *reference)
{
    Column columns[] = {{"loss", LOSS_LIMIT, 0}, {"grad_norm", NORM_LIMIT, 0}};
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
    printf("%zu steps, loss within %.1e, grad_norm within %.1e\n", steps, columns[0].worst,
           columns[1].worst);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: reference_compare LOG.jsonl REFERENCE.json\n");
        return 2;
    }
    json_error_t error;
    json_t *reference = json_load_file(argv[2], 0, &error);
    FILE *log = fopen(argv[1], "r");
    int code = 2;
    if (!reference)
        fprintf(stderr, "%s: %s\n", argv[2], error.text);
    else if (!log)
        perror(argv[1]);
    else
        code = compare_all(log, reference);
    if (log)
        fclose(log);
    json_decref(reference);
    return code;
}
