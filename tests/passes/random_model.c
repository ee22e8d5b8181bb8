/* random_model.c - models that are valid, drawn by a seed: see random_model() in passes.h. */
#include "passes.h"

enum { MOST_TENSORS = 24 };

typedef struct {
    uint64_t state;
    Text *text;
    int tensors; /* x, t1 … */
    int layers;  /* of the model's own scope: may be tied */
    int names;
    int gpus;
} Writer;

static int draw(Writer *w, int n)
{
    w->state = w->state * 6364136223846793005u + 1442695040888963407u;
    return (int)((w->state >> 33) % (uint64_t)n);
}

static const char *tensor(Writer *w)
{
    static const char *const fixed[] = {"x", "x2"};
    int k = draw(w, w->tensors + 2);
    return k < 2 ? fixed[k] : arena_printf(w->text->arena, "t%d", k - 2);
}

static const char *place_of(Writer *w, const char *turn)
{
    if (w->gpus == 1 || draw(w, 3) == 0)
        return "";
    if (turn && draw(w, 2))
        return arena_printf(w->text->arena, " @gpu[%s * %d / 4 %% %d]", turn, 1 + draw(w, w->gpus),
                            w->gpus);
    return arena_printf(w->text->arena, " @gpu[%d]", draw(w, w->gpus));
}

/* turn: the loop's number in this turn, an expression; NULL outside of loops. */
static const char *expression(Writer *w, const char *turn)
{
    Arena *m = w->text->arena;
    const char *a = tensor(w), *b = tensor(w);
    const char *as =
        turn ? arena_printf(m, "as l%d[%s]", w->names, turn) : arena_printf(m, "as l%d", w->names);
    w->names++;
    switch (draw(w, 13)) {
    case 0:
    case 1:
    case 2:
        return arena_printf(m, "linear(%s, 8) %s", a, as);
    case 3:
        return arena_printf(m, "tanh(%s + %s)", a, b);
    case 4:
        return arena_printf(m, "%s * sigmoid(%s)", a, b);
    case 5:
        return arena_printf(m, "layernorm(%s) %s", a, as);
    case 6:
        return arena_printf(m, "%s + w", a);
    case 7:
        return arena_printf(m, "dropout(%s, 0.25) %s", a, as);
    case 8:
        return arena_printf(m, "flatten(transpose(reshape(%s, [2, 4]), 0, 1))", a);
    case 9:
        return turn ? arena_printf(m, "tanh(%s * (%s < 2 ? 0.25 : 0.5) + %s)", a, turn, b)
                    : arena_printf(m, "relu(%s - %s)", a, b);
    case 10:
        return arena_printf(m, "concat(slice(%s, 0, 0, 4), slice(%s, 0, 4, 8))", a, b);
    case 11:
        return arena_printf(m, "linear(%s, 8, bias = false, weight = first.weight)", a);
    default:
        return arena_printf(m, "softmax(%s) - %s", a, b);
    }
}

static void statements(Writer *w, int depth, const char *turn)
{
    static const char *const variables[] = {"i", "j"};
    for (int n = 1 + draw(w, 4); n > 0; n--) {
        int kind = draw(w, 8);
        if (kind < 2 && depth < 2) {
            const char *i = variables[depth];
            const char *inner = turn ? arena_printf(w->text->arena, "(%s * 8 + %s)", turn, i) : i;
            text_printf(w->text, "for %s in 0 .. %d {\n", i, 2 + draw(w, 5));
            statements(w, depth + 1, inner);
            text_add(w->text, "}\n");
            continue;
        }
        const char *wrap = kind == 2 ? "recompute" : kind == 3 ? "freeze" : NULL;
        const char *value = expression(w, turn), *at = place_of(w, turn);
        bool fresh = w->tensors < 2 || (w->tensors < MOST_TENSORS && depth == 0 && draw(w, 2));
        int to = fresh ? w->tensors : draw(w, w->tensors);
        text_printf(w->text, "%s%st%d = %s%s;%s\n", wrap ? wrap : "", wrap ? " { " : "", to, value,
                    at, wrap ? " }" : "");
        w->tensors += fresh;
    }
}

char *random_model(Arena *a, uint64_t seed)
{
    Text text = {.arena = a};
    Writer w = {.state = seed * 977 + 3, .text = &text};
    draw(&w, 2);
    w.gpus = 1 + draw(&w, 4);
    static const char *const types[] = {"f32", "bf16", "f16"};
    text_printf(&text,
                "model random {\ninput x : %s[8];\ninput x2 : %s[8];\ntarget y : i32;\n"
                "weight w : f32[8] = normal(0.5);\nt0 = linear(x, 8) as first;\n"
                "t1 = tanh(t0 + x2);\n",
                types[seed / 3 % 3], types[seed % 3]);
    w.tensors = 2;
    statements(&w, 0, NULL);
    statements(&w, 0, NULL);
    text_printf(&text, "out = linear(%s + t0 + w, 5) as last%s;\n", tensor(&w), place_of(&w, NULL));
    text_add(&text, "loss cross_entropy(out, y);\n");
    if (draw(&w, 2))
        text_printf(&text, "metric accuracy(out, y)%s;\nmetric mean(%s);\n", place_of(&w, NULL),
                    tensor(&w));
    static const char *const optimizers[] = {"sgd(lr = 0.1)", "sgd(lr = 0.1, momentum = 0.9)",
                                             "adamw(lr = 1e-3)"};
    text_printf(&text, "}\ntrain { batch = 8; optimizer = %s;%s precision = %s; }\n",
                optimizers[draw(&w, 3)], draw(&w, 2) ? " clip_norm = 1.0;" : "",
                types[seed / 9 % 3]);
    static const char *const schedules[] = {"1f1b", "gpipe", "zero_bubble", "interleaved"};
    text_printf(&text, "parallel { microbatch = %d; schedule = %s; }\n", 1 << draw(&w, 4),
                schedules[draw(&w, 4)]);
    text_printf(&text, "devices gpu[%d] = cpu;\n", w.gpus);
    return text.at;
}
