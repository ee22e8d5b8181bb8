/* plan_pictures.c - SVG and Graphviz of a plan: well-formed whatever the names are, small
 * whatever the schedule is. */
#include "plan_workshop.h"

#include <ctype.h>
#include <string.h>

static const char *svg_of(const Work *w, size_t *size)
{
    Text t = {.arena = w->arena};
    plan_svg(plan_make(w->arena, w->program), &t);
    *size = t.n;
    return t.at;
}

/* One of the five entities or a number; returns what follows. */
static const char *skip_entity(const char *s)
{
    const char *end = strchr(s, ';');
    assert_true(end && end - s < 8);
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (int i = 0; i < 5; i++)
        if (strncmp(s, known[i], strlen(known[i])) == 0)
            return end + 1;
    fail_msg("entity %.8s", s);
    return NULL;
}

/* name="value" pairs up to the end of the tag. */
static const char *skip_attributes(const char *s)
{
    for (;;) {
        while (*s == ' ')
            s++;
        if (*s == '>' || *s == '/')
            return s;
        size_t n = strcspn(s, "=<> ");
        assert_true(n > 0 && s[n] == '=' && s[n + 1] == '"');
        for (s += n + 2; *s != '"';) {
            assert_true(*s && *s != '<');
            s = *s == '&' ? skip_entity(s) : s + 1;
        }
        s++;
    }
}

/* Elements nest and close, attributes are quoted, entities known, text is free of markup. */
static void check_well_formed(const char *s)
{
    enum { DEPTH = 16 };
    const char *open[DEPTH];
    size_t length[DEPTH];
    int depth = 0;
    while (*s) {
        if (*s == '&') {
            s = skip_entity(s);
        } else if (*s != '<') {
            assert_true(*s != '>' && (depth > 0 || isspace((unsigned char)*s)));
            s++;
        } else if (s[1] == '/') {
            size_t n = strcspn(s + 2, ">");
            assert_true(depth-- > 0 && n == length[depth] && memcmp(s + 2, open[depth], n) == 0);
            s += n + 3;
        } else {
            size_t n = strcspn(s + 1, " />");
            assert_true(n > 0 && depth < DEPTH && isalpha((unsigned char)s[1]));
            open[depth] = s + 1;
            length[depth++] = n;
            s = skip_attributes(s + 1 + n);
            depth -= *s == '/';
            s += *s == '/' ? 2 : 1;
        }
    }
    assert_int_equal(depth, 0);
}

static int count(const char *s, const char *what)
{
    int n = 0;
    for (; (s = strstr(s, what)); s += strlen(what))
        n++;
    return n;
}

static void test_svg_draws_every_run(void **state)
{
    (void)state;
    Work w = work_chain(4, 2, 8, SCHEDULE_1F1B);
    size_t size;
    const char *svg = svg_of(&w, &size);
    check_well_formed(svg);
    assert_int_equal(count(svg, "<title>F of chunk"), 32);
    assert_int_equal(count(svg, "<title>B of chunk"), 32);
    assert_int_equal(count(svg, "class=\"m\" d="), 4); /* a curve of memory for each device */
    assert_non_null(strstr(svg, "class=\"t0\" d="));
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
    for (int d = 0; d < 4; d++) { /* the memory that the plan's table has */
        int64_t kept = w.program->devices.at[d].class_bytes[BUFFER_KEPT];
        const char *label =
            arena_printf(w.arena, "</title>kept %s</text>", show_bytes(w.arena, kept));
        assert_non_null(strstr(svg, label));
    }
    work_free(&w);
}

static void test_svg_of_any_shape(void **state)
{
    (void)state;
    static const struct {
        int stages, microbatches;
    } shapes[] = {{1, 1}, {2, 4}, {9, 3}, {20, 40}, {64, 512}, {140, 4}, {300, 2}};
    for (int i = 0; i < 7; i++) {
        Work w = work_chain(shapes[i].stages, 1, shapes[i].microbatches, SCHEDULE_1F1B);
        size_t size;
        const char *svg = svg_of(&w, &size);
        assert_true(size < 2000000);
        check_well_formed(svg);
        assert_null(strstr(svg, "nan"));
        work_free(&w);
    }
    Work w = work_interleaved(6);
    size_t size;
    const char *svg = svg_of(&w, &size);
    check_well_formed(svg);
    assert_non_null(strstr(svg, "class=\"f1\" x=")); /* the second chunk's shade */
    assert_non_null(strstr(svg, "class=\"t2\" d=")); /* the tied weight's way */
    work_free(&w);
}

static void test_svg_escapes_names(void **state)
{
    (void)state;
    Work w = work_chain(2, 1, 2, SCHEDULE_1F1B);
    w.program->model->name = "<b>&\"'\x01\xf0\x28";
    w.program->devices.at[1].name = "]]><script>&";
    size_t size;
    const char *svg = svg_of(&w, &size);
    check_well_formed(svg);
    assert_non_null(strstr(svg, ">&lt;b&gt;&amp;&quot;&#39;\xEF\xBF\xBD\xEF\xBF\xBD(</text>"));
    assert_non_null(strstr(svg, ">]]&gt;&lt;script&gt;&amp;</text>"));
    work_free(&w);
}

static void test_svg_of_no_time(void **state)
{
    (void)state;
    Work w = work_chain(2, 1, 2, SCHEDULE_1F1B);
    for (int c = 0; c < 2; c++)
        for (int k = 0; k < RUN_KINDS; k++)
            w.program->chunks.at[c].seconds[k] = 0;
    size_t size;
    check_well_formed(svg_of(&w, &size));
    work_free(&w);
}

static void test_shortened_text(void **state)
{
    (void)state;
    Arena *a = arena_new();
    assert_string_equal(svg_shorten(a, "short", 5), "short");
    assert_string_equal(svg_shorten(a, "0123456789", 5), "01\xE2\x80\xA6"
                                                         "89");
    assert_string_equal(svg_shorten(a,
                                    "\xC3\xA4\xC3\xB6\xC3\xBC\xC3\x9F"
                                    "e",
                                    4),
                        "\xC3\xA4\xC3\xB6\xE2\x80\xA6"
                        "e");
    assert_int_equal(svg_length("\xC3\xA4"
                                "b\xff"),
                     3);
    arena_free(a);
}

/* Every quote that opens closes on its line, braces and brackets match. */
static void check_dot(const char *s)
{
    int braces = 0, brackets = 0;
    bool quoted = false;
    for (; *s; s++) {
        if (quoted) {
            assert_true(*s != '\n');
            if (*s == '\\')
                s++;
            else if (*s == '"')
                quoted = false;
            continue;
        }
        quoted = *s == '"';
        braces += *s == '{' ? 1 : *s == '}' ? -1 : 0;
        brackets += *s == '[' ? 1 : *s == ']' ? -1 : 0;
        assert_true(braces >= 0 && brackets >= 0);
    }
    assert_true(!quoted && braces == 0 && brackets == 0);
}

static void test_dot(void **state)
{
    (void)state;
    Work w = work_chain(3, 4, 2, SCHEDULE_1F1B);
    w.program->model->name = "\"];\n} digraph x\\";
    Text t = {.arena = w.arena};
    plan_dot(plan_make(w.arena, w.program), &t);
    check_dot(t.at);
    assert_int_equal(count(t.at, "subgraph cluster_"), 3);
    assert_non_null(strstr(t.at, "label=\"fc.4 \xE2\x80\xA6 fc.7  \xC3\x97"
                                 "4\""));
    assert_int_equal(count(t.at, "style=dashed"), 2);
    assert_non_null(strstr(t.at, "\\nf32[2, 32]\\n256 B\""));
    work_free(&w);

    w = work_interleaved(2);
    Text tied = {.arena = w.arena};
    plan_dot(plan_make(w.arena, w.program), &tied);
    check_dot(tied.at);
    assert_int_equal(count(tied.at, "style=dotted"), 2); /* the gradient there, the weight back */
    work_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_svg_draws_every_run), cmocka_unit_test(test_svg_of_any_shape),
        cmocka_unit_test(test_svg_escapes_names),   cmocka_unit_test(test_svg_of_no_time),
        cmocka_unit_test(test_shortened_text),      cmocka_unit_test(test_dot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
