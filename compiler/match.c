/* match.c - fits the arguments of a call to a signature of ops.def.
 *
 * In: "x, n: int, bias: bool = true, …" and a call. Out: one Term per parameter, of the
 * kind it asks for, TERM_ABSENT where it is optional and was not given; further tensors
 * in a list. All slips of a call are said at once, under its signature. */
#include "match.h"

#include <stdlib.h>
#include <string.h>

static const char *const kind_names[] = {"tensor", "int",    "real", "bool",
                                         "init",   "weight", "list", "pair"};
static const char *const kind_wants[] = {"a tensor",
                                         "an integer known at compile time",
                                         "a number known at compile time",
                                         "true or false",
                                         "an initial value such as normal(0.02)",
                                         "a weight such as wte.weight",
                                         "a list of integers such as [0, 1]",
                                         "a pair such as (0.9, 0.999)"};

static const char *skip_spaces(const char *s)
{
    while (*s == ' ')
        s++;
    return s;
}

static const char *read_word(Arena *a, const char **s)
{
    const char *from = *s = skip_spaces(*s);
    *s += strcspn(*s, " ,:=");
    return arena_strndup(a, from, (size_t)(*s - from));
}

static Term default_term(ParamKind kind, const char *text)
{
    Term t = {.kind = TERM_ABSENT, .at = NO_PLACE};
    if (!strcmp(text, "none") || !strcmp(text, "default"))
        return t;
    if (kind == PARAM_BOOL) {
        t.kind = TERM_BOOL;
        t.truth = !strcmp(text, "true");
    } else if (kind == PARAM_INT) {
        t.kind = TERM_INT;
        t.integer = strtoll(text, NULL, 10);
    } else if (kind == PARAM_REAL) {
        t.kind = TERM_REAL;
        t.real = strtod(text, NULL);
    }
    return t;
}

void signature_parse(Arena *a, Signature *sig, const char *name, const char *text)
{
    *sig = (Signature){.name = name, .text = text};
    for (const char *s = text; *(s = skip_spaces(s)) && sig->n < MATCH_MAX_PARAMS;) {
        SigParam p = {.kind = PARAM_TENSOR, .name = read_word(a, &s)};
        s = skip_spaces(s);
        if (*s == ':') {
            s++;
            const char *kind = read_word(a, &s);
            for (int k = 0; k <= PARAM_PAIR; k++)
                if (!strcmp(kind, kind_names[k]))
                    p.kind = (ParamKind)k;
            s = skip_spaces(s);
        }
        if (*s == '=') {
            s++;
            p.optional = true;
            p.value = default_term(p.kind, read_word(a, &s));
            s = skip_spaces(s);
        }
        if (*s == ',')
            s++;
        if (!strcmp(p.name, "…"))
            sig->variadic = true;
        else
            sig->param[sig->n++] = p;
    }
}

static int find_param(const Signature *sig, const char *name)
{
    for (int i = 0; i < sig->n; i++)
        if (!strcmp(sig->param[i].name, name))
            return i;
    return -1;
}

static bool list_of_ints(Term t)
{
    for (int i = 0; i < t.list.n; i++)
        if (t.list.of[i].kind != TERM_INT)
            return false;
    return true;
}

static bool fits(const Elab *e, ParamKind kind, Term t)
{
    switch (kind) {
    case PARAM_TENSOR:
        return t.kind == TERM_TENSOR;
    case PARAM_INT:
        return t.kind == TERM_INT;
    case PARAM_REAL:
        return term_is_number(t);
    case PARAM_BOOL:
        return t.kind == TERM_BOOL;
    case PARAM_INIT:
        return t.kind == TERM_INIT;
    case PARAM_WEIGHT:
        return t.kind == TERM_TENSOR && e->graph->values.at[t.tensor].kind == VALUE_WEIGHT;
    case PARAM_LIST:
        return t.kind == TERM_LIST && list_of_ints(t);
    case PARAM_PAIR:
        return t.kind == TERM_LIST;
    }
    return false;
}

static void help_signature(Elab *e, const Signature *sig)
{
    elab_help(e, "%s(%s)", sig->name, sig->text);
}

typedef struct {
    Elab *e;
    const Signature *sig;
    Term *out;
    Place first[MATCH_MAX_PARAMS];
    bool given[MATCH_MAX_PARAMS];
    bool broken;
} Match;

static void give(Match *m, int i, const Arg *arg)
{
    Elab *e = m->e;
    if (m->given[i]) {
        elab_error(e, arg->at, "%s is given %s twice", m->sig->name, m->sig->param[i].name);
        elab_note(e, m->first[i], "the first is here");
        m->broken = true;
        return;
    }
    m->given[i] = true;
    m->first[i] = arg->at;
    Term t = eval(e, arg->value);
    bool number = m->sig->numbers && term_is_number(t);
    if (t.kind != TERM_ERROR && !number && !fits(e, m->sig->param[i].kind, t)) {
        elab_error(e, arg->value->at, "%s of %s wants %s, not %s", m->sig->param[i].name,
                   m->sig->name, kind_wants[m->sig->param[i].kind], term_describe(e, t));
        help_signature(e, m->sig);
        t = term_error(t.at);
    }
    if (t.kind == TERM_INT && m->sig->param[i].kind == PARAM_REAL) {
        t.kind = TERM_REAL;
        t.real = (double)t.integer;
    }
    m->broken |= t.kind == TERM_ERROR;
    m->out[i] = t;
}

static void unknown_param(Match *m, const Arg *arg)
{
    const char *names[MATCH_MAX_PARAMS];
    for (int i = 0; i < m->sig->n; i++)
        names[i] = m->sig->param[i].name;
    elab_error(m->e, arg->at, "%s has no argument %s", m->sig->name, arg->name);
    elab_help_nearest(m->e, arg->name, names, m->sig->n);
    help_signature(m->e, m->sig);
    m->broken = true;
}

static void give_more(Match *m, const Arg *arg, Term *more, int *nmore)
{
    Term t = eval(m->e, arg->value);
    if (t.kind != TERM_ERROR && t.kind != TERM_TENSOR) {
        elab_error(m->e, arg->value->at, "%s wants tensors here, not %s", m->sig->name,
                   term_describe(m->e, t));
        help_signature(m->e, m->sig);
        t = term_error(t.at);
    }
    m->broken |= t.kind == TERM_ERROR;
    more[(*nmore)++] = t;
}

bool match_args(Elab *e, const Signature *sig, const Expr *call, Term *out, Term *more, int *nmore)
{
    Match m = {.e = e, .sig = sig, .out = out};
    const ArgList *args = &call->call.args;
    int next = 0;
    for (int i = 0; i < sig->n; i++)
        out[i] = sig->param[i].optional ? sig->param[i].value : (Term){.kind = TERM_ABSENT};
    for (int i = 0; i < args->n; i++) {
        const Arg *arg = &args->at[i];
        if (arg->name) {
            int p = find_param(sig, arg->name);
            if (p < 0)
                unknown_param(&m, arg);
            else
                give(&m, p, arg);
        } else if (sig->variadic && next > 0) {
            give_more(&m, arg, more, nmore);
        } else if (next < sig->n) {
            give(&m, next++, arg);
        } else {
            elab_error(e, arg->at, "%s takes %s%d argument%s", sig->name,
                       sig->n && sig->param[sig->n - 1].optional ? "at most " : "", sig->n,
                       sig->n == 1 ? "" : "s");
            help_signature(e, sig);
            m.broken = true;
        }
    }
    for (int i = 0; i < sig->n; i++)
        if (!m.given[i] && !sig->param[i].optional) {
            elab_error(e, call->at, "%s is not given %s", sig->name, sig->param[i].name);
            help_signature(e, sig);
            m.broken = true;
        }
    return !m.broken;
}
