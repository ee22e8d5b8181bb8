/* syntax_unit.c - the arena, numbers as text, nearest words, and messages as JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ast.h"
#include "parse.h"
#include "syntax_run.h"

#include <jansson.h>
#include <string.h>

static void test_arena(void **state)
{
    (void)state;
    Arena *a = arena_new();
    VEC(int64_t) v = {0};
    for (int i = 0; i < 100000; i++)
        VEC_PUSH(a, &v, i);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(v.at[i], i);
    char *big = arena_alloc(a, 3 << 20);
    for (int i = 0; i < 3 << 20; i++)
        assert_int_equal(big[i], 0);
    for (size_t n = 0; n < 100; n++)
        assert_int_equal((uintptr_t)arena_alloc(a, n) % 16, 0);
    Text t = {.arena = a};
    for (int i = 0; i < 1000; i++)
        text_printf(&t, "%d,", i % 10);
    assert_int_equal(t.n, 2000);
    assert_int_equal(strlen(t.at), 2000);
    assert_string_equal(arena_printf(a, "%s-%d", "x", 7), "x-7");
    arena_free(a);
}

static void test_numbers(void **state)
{
    (void)state;
    Arena *a = arena_new();
    int64_t n;
    assert_true(mul_i64(1 << 30, 1 << 30, &n) && n == (int64_t)1 << 60);
    assert_false(mul_i64(INT64_MAX, 2, &n));
    assert_true(add_i64(INT64_MAX, 0, &n));
    assert_false(add_i64(INT64_MAX, 1, &n));
    assert_int_equal(round_up(17, 16), 32);
    assert_int_equal(round_up(32, 16), 32);
    assert_string_equal(show_count(a, 0), "0");
    assert_string_equal(show_count(a, 999), "999");
    assert_string_equal(show_count(a, 1234567), "1,234,567");
    assert_string_equal(show_count(a, -123456), "-123,456");
    assert_string_equal(show_bytes(a, 512), "512 B");
    assert_string_equal(show_bytes(a, 1258291), "1.2 MiB");
    assert_string_equal(show_bytes(a, (1 << 20) - 1), "1.0 MiB");
    assert_string_equal(show_quantity(a, 3.4e9, "FLOP"), "3.4 GFLOP");
    assert_string_equal(show_quantity(a, 12, "FLOP"), "12 FLOP");
    arena_free(a);
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const words[] = {"linear", "layernorm", "sgd", "adam", "adamw", "relu"};
    assert_string_equal(diag_nearest("liner", words, 6), "linear");
    assert_string_equal(diag_nearest("lienar", words, 6), "linear");
    assert_string_equal(diag_nearest("LayerNorm", words, 6), "layernorm");
    assert_string_equal(diag_nearest("sdg", words, 6), "sgd");
    assert_string_equal(diag_nearest("adan", words, 6), "adam");
    assert_null(diag_nearest("conv2d", words, 6));
    assert_null(diag_nearest("x", words, 6));
    assert_null(diag_nearest("", words, 6));
    char longest[200];
    memset(longest, 'a', sizeof longest);
    longest[199] = '\0';
    assert_null(diag_nearest(longest, words, 6));
}

static void test_json(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new(a);
    int file = diag_add_source(d, "a\033.mdl", "x = 1;\n", 7);
    Place at = {.file = file, .line = 1, .col = 5, .len = 1};
    diag_error(d, at, "wrong \xff %d", 7);
    diag_note(d, (Place){.file = file, .line = 1, .col = 1, .len = 1}, "from here");
    diag_help(d, "do this");
    diag_warning(d, NO_PLACE, "careful");
    json_t *all = json_loads(run_messages(a, d, true), 0, NULL);
    assert_int_equal(json_array_size(all), 2);
    const char *severity, *message, *name, *help, *note;
    int line, column, length;
    assert_int_equal(
        json_unpack(json_array_get(all, 0), "{s:s,s:s,s:s,s:i,s:i,s:i,s:[{s:s}],s:[s]}", "severity",
                    &severity, "message", &message, "file", &name, "line", &line, "column", &column,
                    "length", &length, "notes", "message", &note, "help", &help),
        0);
    assert_string_equal(severity, "error");
    assert_string_equal(message, "wrong \\xff 7");
    assert_string_equal(name, "a\\x1b.mdl");
    assert_int_equal(line * 100 + column * 10 + length, 151);
    assert_string_equal(note, "from here");
    assert_string_equal(help, "do this");
    assert_true(json_is_null(json_object_get(json_array_get(all, 1), "file")));
    json_decref(all);
    assert_string_equal(run_messages(a, d, true), "[]\n"); /* said once */
    arena_free(a);
}

static void test_limit(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new(a);
    for (int i = 0; i < 25; i++) {
        diag_error(d, NO_PLACE, "number %d", i);
        diag_help(d, "help %d", i);
    }
    assert_int_equal(diag_errors(d), 25);
    const char *text = run_messages(a, d, false);
    assert_non_null(
        strstr(text, "mdlc: error: number 19\nhelp: help 19\n5 more errors not shown\n"));
    assert_null(strstr(text, "20"));
    assert_string_equal(run_messages(a, d, false), "");
    diag_error(d, NO_PLACE, "late");
    assert_string_equal(run_messages(a, d, false), "1 more error not shown\n");
    arena_free(a);
}

static void test_show(void **state)
{
    (void)state;
    static const char *const same[] = {
        "a + b * c",
        "(a + b) * c",
        "a - (b - c)",
        "-(a + b)",
        "a ? b : c ? d : e",
        "(a ? b : c) ? d : e",
        "f(x, n = 2) as h[i].x",
        "[1, (2, 3.5)]",
        "a && (b || c)",
        "\"q\\\"\\n\"",
        "80 GiB",
        "!a == b",
    };
    Arena *a = arena_new();
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        const char *text = arena_printf(a, "const x = %s;", same[i]);
        Parser p = {.arena = a, .diag = diag_new(a), .text = text, .size = strlen(text)};
        diag_add_source(p.diag, "t.mdl", text, p.size);
        assert_true(parse_text(&p));
        assert_string_equal(ast_show_expr(a, p.items.at[0]->consts.at[0].value), same[i]);
    }
    arena_free(a);
}

static Expr *parse_value(Arena *a, const char *value)
{
    const char *text = arena_printf(a, "train { x = %s; }", value);
    Parser p = {.arena = a, .diag = diag_new(a), .text = text, .size = strlen(text)};
    diag_add_source(p.diag, "t.mdl", text, p.size);
    assert_true(parse_text(&p));
    return p.items.at[0]->settings.at[0].value;
}

static void test_quantities(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        Unit unit;
        double value;
    } cases[] = {
        {"80 GiB", UNIT_BYTES, 80.0 * (1 << 30)},
        {"512MB", UNIT_BYTES, 512e6},
        {"7 kB", UNIT_BYTES, 7000},
        {"7 KiB", UNIT_BYTES, 7168},
        {"1.5 TB", UNIT_BYTES, 1.5e12},
        {"2 B", UNIT_BYTES, 2},
        {"312 TFLOPS", UNIT_FLOPS, 312e12},
        {"1 PFLOPS", UNIT_FLOPS, 1e15},
        {"600 GB/s", UNIT_BYTES_PER_S, 600e9},
        {"1 MiB/s", UNIT_BYTES_PER_S, 1 << 20},
        {"5 us", UNIT_SECONDS, 5e-6},
        {"3 ms", UNIT_SECONDS, 3e-3},
        {"4 ns", UNIT_SECONDS, 4e-9},
        {"2 s", UNIT_SECONDS, 2},
    };
    Arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Expr *e = parse_value(a, cases[i].text);
        assert_int_equal(e->kind, EXPR_QUANTITY);
        assert_int_equal(e->quantity.unit, cases[i].unit);
        assert_true(e->quantity.value == cases[i].value);
    }
    assert_int_equal(parse_value(a, "1f1b")->kind, EXPR_NAME);
    assert_int_equal(parse_value(a, "9223372036854775807")->integer, INT64_MAX);
    arena_free(a);
}

/* Places are what messages stand on: each node's line, column and length. */
static void test_places(void **state)
{
    (void)state;
    Arena *a = arena_new();
    const char *text = "model m {\n  (q, k) = f(x, h[0].w) * 2  @gpu[1];\n}\n";
    Parser p = {.arena = a, .diag = diag_new(a), .text = text, .size = strlen(text)};
    diag_add_source(p.diag, "t.mdl", text, p.size);
    assert_true(parse_text(&p));
    const Stmt *s = p.items.at[0]->model.body.at[0];
    const Expr *product = s->bind.value, *call = product->a, *path = call->call.args.at[1].value;
    const Place want[] = {{0, 1, 7, 1},  {0, 2, 3, 6},  {0, 2, 25, 1},
                          {0, 2, 12, 1}, {0, 2, 17, 6}, {0, 2, 31, 6}};
    const Place got[] = {p.items.at[0]->at, s->at, product->at, call->at, path->at, s->device->at};
    for (int i = 0; i < 6; i++)
        assert_memory_equal(&want[i], &got[i], sizeof(Place));
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena),      cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_nearest),    cmocka_unit_test(test_json),
        cmocka_unit_test(test_limit),      cmocka_unit_test(test_show),
        cmocka_unit_test(test_quantities), cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
