/* plan_schedule_files.c - schedules from files: each wrong one is refused with what is wrong, and
 * what is taken passes the proofs, however a right one was changed. */
#include "plan_workshop.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "order.h"
#include "schedule_file.h"

/* Four layers, for two devices; two micro-batches. */
#define LAYERS                                                                                     \
    "model m { input x : f32[8]; target y : f32[8];"                                               \
    "for i in 0 .. 4 { x = relu(linear(x, 8) as fc[i])%s; } loss mse(x, y); }"                     \
    "train { batch = 4; } %s"
#define TWO "devices gpu[2] = cpu;"
#define HALVES "parallel { microbatch = 2; }"

typedef struct {
    Arena *arena;
    Program *program; /* NULL: refused */
    char *said;
} Outcome;

static Model *read_model(Arena *a, Diag *d, const char *text)
{
    static char path[32]; /* messages name it */
    strcpy(path, "plan_model_XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    FrontOptions o = {0};
    struct Ast *ast = parse_file(a, d, path, &o);
    unlink(path);
    Model *m = ast ? elaborate(a, d, ast, &o) : NULL;
    assert_non_null(m);
    return m;
}

/* Links between threads, copies between GPUs, or NCCL. */
static TransferKind transfer;

static Program *compile(Arena *a, Diag *d, const char *model, const char *file, size_t size)
{
    Model *m = read_model(a, d, model);
    if (!schedule_file_read(m, "s.csv", file, size, d))
        return NULL;
    const bool gpus = transfer != TRANSFER_LINKS;
    m->settings.parallel.nccl = transfer == TRANSFER_NCCL;
    simplify(m->graph);
    mix_precision(m->graph, m->settings.train.precision);
    recompute(m, false, d);
    assert_true(differentiate(m->graph, &m->settings, d));
    Placement *pl = place(m, split(m, gpus), d);
    if (!pl)
        return NULL;
    fuse(m->graph, pl);
    Program *p = lower(m, pl, d);
    assert_non_null(p);
    assert_true(!gpus || program_for_gpus(p, d));
    if (!schedule_file_ends(m->settings.parallel.file, p, d))
        return NULL;
    const SlotList *eval = schedule(p, m->settings.parallel.schedule, true);
    communicate(p, schedule_train(p, eval), eval);
    if (gpus)
        order_waits(p);
    assert_true(allocate(p, d));
    assert_true(verify_coverage(p, stderr) && verify_deadlock(p, stderr) &&
                verify_races(p, stderr) && verify_memory(p, stderr));
    return p;
}

static Outcome outcome_of(const char *model, const char *file, size_t size)
{
    Outcome o = {.arena = arena_new()};
    Diag *d = diag_new(o.arena);
    o.program = compile(o.arena, d, model, file, size);
    assert_int_equal(o.program == NULL, diag_errors(d) > 0);
    size_t n;
    FILE *to = open_memstream(&o.said, &n);
    assert_non_null(to);
    diag_flush(d, to, false);
    fclose(to);
    return o;
}

static void outcome_free(Outcome *o)
{
    free(o->said);
    arena_free(o->arena);
}

static const char *model_text(const char *where, const char *settings)
{
    static char text[400];
    snprintf(text, sizeof text, LAYERS, where, settings);
    return text;
}

/* ----------------------------------------------------------------------- refusals */

typedef struct {
    const char *file, *first, *second; /* what the messages hold */
} Refusal;

static void check_refusals(const char *model, const Refusal *r, int n)
{
    for (int i = 0; i < n; i++) {
        Outcome o = outcome_of(model, r[i].file, strlen(r[i].file));
        if (o.program || !strstr(o.said, r[i].first) || !strstr(o.said, r[i].second)) {
            print_error("%swanted: %s\n        %s\nsaid: %s\n", r[i].file, r[i].first, r[i].second,
                        o.said);
            fail();
        }
        outcome_free(&o);
    }
}

#define GOOD "1F0,1B0,1F1,1B1\n"

static void test_cells_refused(void **state)
{
    (void)state;
    static const Refusal refusals[] = {
        {"0F0,0X1\n" GOOD, "s.csv:1:5: error: \"0X1\" at step 2 of gpu[0] is no action",
         "help: an action is a chunk, F, B, I or W, and a micro-batch: 2B1"},
        {"0F0,0F\n" GOOD, "s.csv:1:5: error: \"0F\" at step 2 of gpu[0] is no action", "help"},
        {"0F0,F0\n" GOOD, "\"F0\" at step 2", "help"},
        {"0F0, 0F1 0B0\n" GOOD, "s.csv:1:6: error: \"0F1 0B0\" at step 2", "help"},
        {"0F0,0F-1\n" GOOD, "\"0F-1\" at step 2", "help"},
        {"0F0,0F1,0SEND_F0\n" GOOD, "\"0SEND_F0\" at step 3", "format=\"compute_only\""},
        {"0F0\v\n" GOOD, "is no action", "\\x0b"},
        {"\"0F0\",0F1,0B0,0B1\n" GOOD, "s.csv:1:1: error: \"\"0F0\"\"", "is no action"},
        {"0F0,0F1,(0F1;)OVERLAP_F_B\n" GOOD, "\"(0F1;)OVERLAP_F_B\" at step 3", "help"},
        {"0F0,(0F1\n" GOOD, "\"(0F1\" at step 2", "help"},
        {"0F0,99999F0\n" GOOD, "step 2 of gpu[0]: a schedule has fewer than 65536 chunks", ""},
        {"0F99999999999999999999\n" GOOD, "step 1 of gpu[0]: a schedule has fewer than 16777216",
         "micro-batches"},
        {"", "s.csv:1:1: error: the schedule is empty", "mdlc plan --csv FILE"},
        {"\n , \n\n", "the schedule is empty", ""},
        {"0F0,0F1,0B0,0B1\n1F0,1B0,1Q1\n", "s.csv:2:9: error: \"1Q1\" at step 3 of gpu[1]", ""},
    };
    check_refusals(model_text("", HALVES TWO), refusals, (int)(sizeof refusals / sizeof *refusals));
}

static void test_orders_refused(void **state)
{
    (void)state;
    static const Refusal refusals[] = {
        /* twice, missing, out of order */
        {"0F0,,0F1,0F1,0B0,0B1\n" GOOD,
         "s.csv:1:10: error: 0F1 at step 4 of gpu[0]: that has been done",
         "s.csv:1:6: note: here: 0F1 at step 3 of gpu[0]"},
        {"0F0,0F1,0B0,0I0,0B1\n" GOOD, "error: 0I0 at step 4 of gpu[0]: that has been done",
         "note: here: 0B0 at step 3 of gpu[0]"},
        {"0F0,0F1,0I0,0W0,0W0\n" GOOD, "error: 0W0 at step 5 of gpu[0]: that has been done",
         "note: here: 0W0 at step 4"},
        {"0F1,0F0,0B0,0B1\n" GOOD,
         "s.csv:1:1: error: 0F1 at step 1 of gpu[0]: 0F0 must come before",
         "gradients are summed in the order of the micro-batches"},
        {"0F0,0F1,0B1,0B0\n" GOOD,
         "s.csv:1:9: error: 0B1 at step 3 of gpu[0]: 0B0 must come before",
         "it comes later: 0B0 at step 4 of gpu[0]"},
        {"0F0,0F1,0I0,0I1,0W1,0W0\n" GOOD, "error: 0W1 at step 5 of gpu[0]: 0W0 must come before",
         "gradients are summed in the order of the micro-batches"},
        {"0F0,0F1,0I0,0B1,0W0\n" GOOD, "error: 0B1 at step 4 of gpu[0]: 0W0 must come before",
         "it comes later: 0W0 at step 5"},
        {"0F1,0B0,0B1\n" GOOD, "error: 0F1 at step 1 of gpu[0]: 0F0 must come before",
         "help: gpu[0] has no 0F0"},
        {"0F0,0F1,0B0\n" GOOD,
         "s.csv:1:9: error: the line of gpu[0] ends with 0B0, at step 3, without 0B1",
         "help: every chunk has F, and B or I and W, for each of 2 micro-batches"},
        {"0F0,0F1,0B0,0I1\n" GOOD, "ends with 0I1, at step 4, without 0W1", "help"},
        {"0F0,0B0\n" GOOD, "ends with 0B0, at step 2, without 0F1", "help"},
        /* what each needs of its own chunk */
        {"0F0,0B1,0F1,0B0\n" GOOD, "error: 0B1 at step 2 of gpu[0]: 0F1 must come before",
         "s.csv:1:9: note: it comes later: 0F1 at step 3 of gpu[0]"},
        {"0B0,0F0,0F1,0B1\n" GOOD, "error: 0B0 at step 1 of gpu[0]: 0F0 must come before", "later"},
        {"0F0,0F1,0W0,0I0,0B1\n" GOOD, "error: 0W0 at step 3 of gpu[0]: 0I0 must come before",
         "it comes later: 0I0 at step 4"},
        {"0F0,0F1,0W0,0B1\n" GOOD, "error: 0W0 at step 3 of gpu[0]: 0I0 must come before",
         "help: gpu[0] has no 0I0"},
        /* numbers */
        {"0F0,0F1,0F2,0B0,0B1\n" GOOD,
         "s.csv:1:9: error: 0F2 at step 3 of gpu[0]: a step has 2 micro-batches, numbered from 0",
         "help: batches of 4, micro-batches of 2"},
        {"0F0,0F1,0B0,0B1\n2F0,2B0,2F1,2B1\n",
         "s.csv:1:1: error: no line has chunk 1: there is no 1F0",
         "the highest number is that of chunk 2"},
        /* devices */
        {"0F0,0F1,0B0,1F0,0B1\n" GOOD,
         "s.csv:2:1: error: 1F0 at step 1 of gpu[1]: chunk 1 is on gpu[0]",
         "s.csv:1:13: note: it is here first: 1F0 at step 4 of gpu[0]"},
        {"0F0,0F1,0B0,0B1\n" GOOD "2F0\n", "s.csv:3:1: error: 2F0 at step 1 of gpu[2]",
         "the model has 2 devices"},
        {"0F0,0F1,0B0,0B1", "s.csv:1:1: error: the file ends without a line for gpu[1]",
         "each of the 2 devices has a line"},
        /* both lines are spoken of */
        {"0F1\n1B0\n", "s.csv:1:1: error: 0F1 at step 1", "s.csv:2:1: error: 1B0 at step 1"},
    };
    check_refusals(model_text("", HALVES TWO), refusals, (int)(sizeof refusals / sizeof *refusals));
}

static void test_deadlocks_refused(void **state)
{
    (void)state;
    static const Refusal refusals[] = {
        /* 0B0 before 0F1, which 1F1 before 1B0 wants */
        {"0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n",
         "error: the schedule comes to no end: 0B0 at step 2 of gpu[0] waits for 1B0 at step 3 of "
         "gpu[1]",
         "s.csv:2:5: note: 1F1 at step 2 of gpu[1] waits for 0F1 at step 3 of gpu[0]"},
        {"0F0,0I0,0W0,0F1,0B1\n1F0,1F1,1B0,1B1\n", "0I0 at step 2 of gpu[0] waits for 1B0",
         "note: 1F1 at step 2 of gpu[1] waits for 0F1 at step 4"},
        /* a device that waits for itself */
        {"1F0,0F0,0F1,1F1,1B0,0B0,1B1,0B1\n\n",
         "s.csv:1:1: error: the schedule comes to no end: 1F0 at step 1 of gpu[0] waits for 0F0 at "
         "step 2 of gpu[0]",
         "chunk 1 of"},
    };
    check_refusals(model_text("", HALVES TWO), refusals, 2);
    Outcome o = outcome_of(model_text("", HALVES TWO), refusals[2].file, strlen(refusals[2].file));
    assert_null(o.program);
    assert_non_null(strstr(o.said, refusals[2].first));
    outcome_free(&o);
}

static void test_models_refused(void **state)
{
    (void)state;
    static const char right[] = "0F0,0F1,0B0,0B1\n" GOOD;
    static const Refusal annotated[] = {
        {"1F0,1B0,1F1,1B1\n0F0,0F1,0B0,0B1\n",
         "s.csv:2:1: error: 0F0 at step 1 of gpu[1]: the model has chunk 0 on gpu[0]",
         "note: chunk 0 begins here"},
        {"0F0,0F1,2F0,2B0,0B0,2F1,2B1,0B1\n" GOOD,
         "s.csv:1:9: error: 2F0 at step 3 of gpu[0]: the model has 2 chunks, numbered from 0", ""},
        {"0F0,0F1,0B0,0B1\n\n",
         "s.csv:1:1: error: the schedule has 1 chunk: there is no 1F0, which gpu[1] would run",
         "note: chunk 1 begins here"},
        {"0F0,0F1,0B0,0B1\n" GOOD "2F0\n", "the model has 2 devices", "2F0 at step 1 of gpu[2]"},
    };
    check_refusals(model_text(" @gpu[i / 2]", HALVES), annotated, 4);
    Outcome o = outcome_of(model_text(" @gpu[i / 2]", HALVES), right, strlen(right));
    assert_non_null(o.program);
    outcome_free(&o);
    /* more chunks than there is to cut */
    static const Refusal many[] = {
        {"0F0,2F0,4F0,6F0,6B0,4B0,2B0,0B0\n1F0,3F0,5F0,7F0,7B0,5B0,3B0,1B0\n",
         "at step 1 of gpu[1]: the model cannot be cut into 8 chunks", "help: cuts are between"}};
    check_refusals(model_text("", TWO "parallel { microbatch = 4; }"), many, 1);
    /* the file says how many micro-batches there are, where the model does not */
    static const Refusal three[] = {
        {"0F0,0F1,0F2,0B0,0B1,0B2\n", "s.csv:1:1: error: the schedule has 3 micro-batches",
         "a batch of 4 is no whole number"},
        {"0F0,0B0,0F1,0B1\n1F0,1B0\n", "ends with 1B0, at step 2, without 1F1", "help"}};
    check_refusals(model_text("", ""), three, 2);
}

/* ------------------------------------------------------------------------ accepted */

static void check_taken(const char *model, const char *file, const char *want)
{
    Outcome o = outcome_of(model, file, strlen(file));
    if (!o.program)
        print_error("%s", o.said);
    assert_non_null(o.program);
    Text csv = {.arena = o.arena};
    plan_csv(o.program, &csv);
    assert_string_equal(csv.at, want);
    outcome_free(&o);
}

static void test_forms_taken(void **state)
{
    (void)state;
    char two[400];
    strcpy(two, model_text("", HALVES TWO));
    static const char plain[] = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n";
    check_taken(two, plain, plain);
    check_taken(two, " 0F0,0F1 ,,\t0B0,,0B1,\r\n,1F0,1B0,1F1,1B1\r\n\r\n\n", plain);
    check_taken(two, "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1", plain);
    check_taken(two, "0F0,0F1,0B0,0B1\n1F0,(1B0;1F1)OVERLAP_F_B,1B1\n", plain);
    check_taken(two, "00F0,0F01,0B0,0B1\n1F0,1B0,1F1,1B1\n", plain);
    /* B is I and W where one chunk has them apart */
    check_taken(two, "0F0,0F1,0B0,0B1\n1F0,1I0,1F1,1W0,1B1\n",
                "0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1W0,1I1,1W1\n");
    /* the model's own schedule does not count */
    check_taken(model_text("", "parallel { microbatch = 2; schedule = searched; }" TWO), plain,
                plain);
    /* devices and micro-batches come from the file where the model says nothing of them */
    check_taken(model_text("", ""), plain, plain);
    /* any order of devices, and chunks that follow one another on one device */
    static const char back[] = "1F0,2F0,1F1,2F1,2B0,1B0,2B1,1B1\n0F0,0F1,,0B0,0B1\n";
    check_taken(two, back, "1F0,2F0,1F1,2F1,2B0,1B0,2B1,1B1\n0F0,0F1,0B0,0B1\n");
    /* a device without work */
    check_taken(two, "0F0,0F1,0B0,0B1\n\n", "0F0,0F1,0B0,0B1\n\n");
    check_taken(two, "\n0F0,0F1,0B0,0B1\n", "\n0F0,0F1,0B0,0B1\n");
}

/* Chunks with one part of the backward pass, or none, are written as PyTorch wants them, and read
 * again as what they were. */
static void test_missing_parts(void **state)
{
    (void)state;
    static const char model[] =
        "model m { input x : f32[8]; target y : f32[8];"
        "freeze { x = relu(linear(x, 8) as a) @gpu[0]; x = relu(linear(x, 8) as b) @gpu[1]; }"
        "x = linear(x, 8) as c @gpu[2]; x = relu(x) @gpu[0]; x = linear(x, 8) as d @gpu[1];"
        "loss mse(x, y) @gpu[3]; }"
        "train { batch = 4; } parallel { microbatch = 2; }";
    Work w = work_compile(model, SCHEDULE_ZERO_BUBBLE, 2);
    Text csv = {.arena = w.arena};
    plan_csv(w.program, &csv);
    const bool has[6][2] = {{false, false}, {false, false}, {false, true},
                            {true, false},  {true, true},   {true, false}};
    assert_int_equal(w.program->chunks.n, 6);
    for (int c = 0; c < 6; c++)
        for (int k = 0; k < 2; k++)
            assert_int_equal(w.program->chunks.at[c].has[k ? RUN_W : RUN_I], has[c][k]);
    Outcome o = outcome_of(model, csv.at, csv.n);
    assert_non_null(o.program);
    Text again = {.arena = o.arena};
    plan_csv(o.program, &again);
    assert_string_equal(again.at, csv.at);
    for (int c = 0; c < 6; c++)
        for (int m = 0; m < 2; m++) {
            const bool both = has[c][0] && has[c][1];
            char cell[16];
            for (const char *kind = "FBIW"; *kind; kind++) {
                snprintf(cell, sizeof cell, "%d%c%d", c, *kind, m);
                assert_int_equal(strstr(csv.at, cell) != NULL,
                                 *kind == 'F' || (*kind == 'B' ? !both : both));
            }
        }
    for (int d = 0; d < w.program->devices.n; d++) {
        const ActionList *a = &w.program->devices.at[d].train, *b = &o.program->devices.at[d].train;
        assert_int_equal(a->actions.n, b->actions.n);
        for (int i = 0; i < a->actions.n; i++)
            assert_true(a->actions.at[i].kind == b->actions.at[i].kind &&
                        a->actions.at[i].run == b->actions.at[i].run &&
                        a->actions.at[i].chunk == b->actions.at[i].chunk &&
                        a->actions.at[i].m == b->actions.at[i].m);
    }
    outcome_free(&o);
    work_free(&w);
}

/* ---------------------------------------------------------------------------- fuzz */

static uint64_t random_state = 1;

static int random_below(int n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int)((random_state >> 33) % (uint64_t)n);
}

/* Where cell k of the text begins, and its length. */
static size_t cell_at(const char *text, int k, size_t *length)
{
    size_t at = 0;
    for (; k > 0; k--)
        at += strcspn(text + at, ",\n") + 1;
    *length = strcspn(text + at, ",\n");
    return at;
}

static int count_cells(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += *text == ',' || *text == '\n';
    return n;
}

/* Swaps two cells or moves one, most often near by, as these are often right; or spoils some text.
 */
static void mutate(char *text, size_t room)
{
    char one[32], other[32], rest[2000];
    size_t n, k;
    const int cells = count_cells(text), first = random_below(cells);
    int second = first + 1 + (random_below(4) ? 0 : random_below(cells));
    second = second < cells ? second : first;
    const size_t a = cell_at(text, first, &n), b = cell_at(text, second, &k);
    const int what = random_below(10);
    if (strlen(text) + 64 > room || n >= sizeof one || k >= sizeof other)
        return;
    if (what < 6 && second > first) { /* a swap */
        snprintf(one, sizeof one, "%.*s", (int)n, text + a);
        snprintf(other, sizeof other, "%.*s", (int)k, text + b);
        snprintf(rest, sizeof rest, "%.*s%s%.*s%s%s", (int)a, text, other, (int)(b - a - n),
                 text + a + n, one, text + b + k);
    } else if (what < 7 && second > first) { /* the first to behind the second */
        snprintf(one, sizeof one, "%.*s", (int)n, text + a);
        snprintf(rest, sizeof rest, "%.*s%.*s,%s%s", (int)a, text, (int)(b + k - a - n - 1),
                 text + a + n + 1, one, text + b + k);
    } else if (what < 8) { /* left out */
        snprintf(rest, sizeof rest, "%.*s%s", (int)a, text, text + a + n);
    } else { /* another character */
        static const char any[] = "0123456789FBIW,\n;() \r\x01\xff";
        snprintf(rest, sizeof rest, "%s", text);
        if (n)
            rest[a + (size_t)random_below((int)n)] = any[random_below((int)sizeof any - 1)];
    }
    if (strlen(rest) < room)
        memcpy(text, rest, strlen(rest) + 1);
}

static void test_changed_files(void **state)
{
    (void)state;
    static const struct {
        const char *where, *settings, *file;
    } seeds[] = {
        {" @gpu[i / 2]", "parallel { microbatch = 1; }",
         "0F0,0F1,0B0,0F2,0B1,0F3,0B2,0B3\n1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3\n"},
        {" @gpu[i / 2]", "parallel { microbatch = 1; }",
         "0F0,0F1,0I0,0W0,0F2,0I1,0W1,0F3,0I2,0W2,0I3,0W3\n"
         "1F0,1I0,1F1,1I1,1W0,1F2,1I2,1W1,1F3,1I3,1W2,1W3\n"},
        {" @gpu[i % 2]", "parallel { microbatch = 2; }",
         "0F0,0F1,2F0,2F1,2I0,2W0,2B1,0B0,0B1\n1F0,1F1,3F0,3B0,3F1,3I1,3W1,1B0,1B1\n"},
        {"", TWO "parallel { microbatch = 2; }",
         "0F0,0F1,3F0,3I0,3W0,3F1,3B1,0B0,0I1,0W1\n1F0,2F0,1F1,2F1,2B0,1I0,2B1,1B1,1W0\n"},
    };
    int taken = 0, refused = 0;
    for (int s = 0; s < 4; s++) {
        const char *model = model_text(seeds[s].where, seeds[s].settings);
        for (int i = 0; i < 300; i++) {
            char text[1000];
            snprintf(text, sizeof text, "%s", seeds[s].file);
            for (int k = 1 + random_below(5) / 4; k > 0; k--)
                mutate(text, sizeof text);
            Outcome o = outcome_of(model, text, strlen(text)); /* which proves what is taken */
            *(o.program ? &taken : &refused) += 1;
            assert_true(o.program || strstr(o.said, "error: "));
            outcome_free(&o);
        }
    }
    print_message("%d taken, %d refused\n", taken, refused);
    assert_true(taken > 60 && refused > 600);
}

/* Any order in which devices can go on, of any runs that can start, is taken. */
typedef struct {
    int chunks, devices, microbatches;
    int device_of[6], next[RUN_KINDS][6]; /* of F, I and W */
    Text lines[3];
} Draw;

static bool draw_run(Draw *d, int c, RunKind run)
{
    const bool back = run != RUN_F;
    const int kind = run == RUN_B ? RUN_I : (int)run, m = d->next[kind][c];
    const int other = back ? c + 1 : c - 1;
    if (m >= d->microbatches || (back && m >= d->next[RUN_F][c]))
        return false;
    if (run == RUN_W ? m >= d->next[RUN_I][c]
                     : other >= 0 && other < d->chunks && d->next[kind][other] <= m)
        return false;
    if (run == RUN_B && d->next[RUN_W][c] != m)
        return false;
    d->next[kind][c]++;
    d->next[RUN_W][c] += run == RUN_B;
    Text *line = &d->lines[d->device_of[c]];
    text_printf(line, "%s%s%d%s%d", line->n ? "," : "", random_below(8) ? "" : ",", c,
                run_name(run), m);
    return true;
}

static void test_drawn_schedules(void **state)
{
    (void)state;
    static const RunKind kinds[] = {RUN_F, RUN_B, RUN_I, RUN_W};
    static const char model[] =
        "model m { input x : f32[8]; target y : f32[8];"
        "for i in 0 .. 12 { x = relu(linear(x, 8) as fc[i]); } loss mse(x, y); }"
        "train { batch = 12; optimizer = adam(lr = 0.1); } devices gpu[3] = cpu;";
    for (int turn = 0; turn < 150; turn++) {
        Arena *a = arena_new();
        Draw d = {.chunks = 1 + random_below(6), .devices = 3};
        static const int counts[] = {1, 2, 3, 4, 6};
        d.microbatches = counts[random_below(5)];
        for (int c = 0; c < d.chunks; c++)
            d.device_of[c] = random_below(3);
        for (int k = 0; k < 3; k++)
            d.lines[k].arena = a, text_add(&d.lines[k], "");
        const bool parts = random_below(3);
        for (int left = 1; left > 0;) {
            const RunKind run = kinds[random_below(parts ? 4 : 2)];
            draw_run(&d, random_below(d.chunks), run);
            left = 0;
            for (int c = 0; c < d.chunks; c++)
                left += 2 * d.microbatches - d.next[RUN_F][c] - d.next[RUN_W][c];
        }
        Text file = {.arena = a};
        for (int k = 0; k < 3; k++)
            text_printf(&file, "%s\n", d.lines[k].at);
        transfer = (TransferKind)(turn % 3);
        Outcome o = outcome_of(model, file.at, file.n);
        if (!o.program)
            print_error("%s%s", file.at, o.said);
        assert_non_null(o.program);
        outcome_free(&o);
        arena_free(a);
    }
    transfer = TRANSFER_LINKS;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cells_refused),     cmocka_unit_test(test_orders_refused),
        cmocka_unit_test(test_deadlocks_refused), cmocka_unit_test(test_models_refused),
        cmocka_unit_test(test_forms_taken),       cmocka_unit_test(test_missing_parts),
        cmocka_unit_test(test_changed_files),     cmocka_unit_test(test_drawn_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
