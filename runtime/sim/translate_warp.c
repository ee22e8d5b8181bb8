/* translate_warp.c - what threads do together: bar shfl vote match redux; fences. */
#include <string.h>

#include "translate.h"

/* bar.sync a{, b} and bar.red.op d, a{, b}, {!}c, also under barrier's name. */
static void translate_bar(Translator *t)
{
    word(t, "cta");
    if (word(t, "warp")) {
        if (!word(t, "sync"))
            unknown(t, NULL);
        operand_count(t, 1, 1);
        emit(t, "    t->service->warp_sync(t, %s, %s);\n", source(t, 0, PTX_U32), site(t));
        return;
    }
    word(t, "aligned");
    const uint32_t n = t->i->noperands;
    if (word(t, "sync")) {
        operand_count(t, 1, 2);
        emit(t, "    t->service->barrier(t, SIM_BAR_SYNC, %s, %s, 0, %s);\n", source(t, 0, PTX_U32),
             n > 1 ? source(t, 1, PTX_U32) : "0", site(t));
        return;
    }
    if (!word(t, "red"))
        unknown(t, NULL);
    const char *kind = word(t, "and")    ? "AND"
                       : word(t, "or")   ? "OR"
                       : word(t, "popc") ? "POPC"
                                         : NULL;
    if (!kind)
        unknown(t, NULL);
    const PtxType type = type_among(t, "pred u32");
    operand_count(t, 3, 4);
    emit(t, "    {\n    const uint32_t all = t->service->barrier(t, SIM_BAR_%s, %s, %s, %s, %s);\n",
         kind, source(t, 1, PTX_U32), n > 3 ? source(t, 2, PTX_U32) : "0",
         source(t, n - 1, PTX_PRED), site(t));
    assign_first(t, type, type == PTX_PRED ? "all != 0" : "all");
    emit(t, "    }\n");
}

static void need_sync(Translator *t)
{
    if (!word(t, "sync"))
        unknown(t, NULL);
}

static void translate_shfl(Translator *t)
{
    static const struct {
        const char *name, *kind;
    } rows[] = {{"idx", "IDX"}, {"up", "UP"}, {"down", "DOWN"}, {"bfly", "BFLY"}};
    const char *kind = NULL;
    need_sync(t);
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !kind; i++)
        if (word(t, rows[i].name))
            kind = rows[i].kind;
    if (!kind)
        unknown(t, NULL);
    type_among(t, "b32");
    operand_count(t, 5, 5);
    const PtxOperand *to = operand(t, 0);
    const bool two = to->kind == PTX_OP_PAIR;
    emit(t, "    {\n    bool valid = true;\n");
    emit(t, "    const uint32_t got = t->service->shuffle(t, SIM_SHFL_%s, %s, %s, %s, %s, ", kind,
         source(t, 1, PTX_B32), source(t, 2, PTX_B32), source(t, 3, PTX_B32),
         source(t, 4, PTX_B32));
    emit(t, "&valid, %s);\n", site(t));
    assign(t, two ? &to->items[0] : to, PTX_B32, "got");
    if (two)
        assign(t, &to->items[1], PTX_PRED, "valid");
    emit(t, "    }\n");
}

static void translate_vote(Translator *t)
{
    need_sync(t);
    const char *kind = word(t, "all")      ? "ALL"
                       : word(t, "any")    ? "ANY"
                       : word(t, "uni")    ? "UNI"
                       : word(t, "ballot") ? "BALLOT"
                                           : NULL;
    if (!kind)
        unknown(t, NULL);
    const PtxType type = type_among(t, kind[0] == 'B' ? "b32" : "pred");
    operand_count(t, 3, 3);
    const char *call = text(t, "t->service->vote(t, SIM_VOTE_%s, %s, %s, %s)", kind,
                            source(t, 1, PTX_PRED), source(t, 2, PTX_B32), site(t));
    assign_first(t, type, type == PTX_PRED ? text(t, "%s != 0", call) : call);
}

/* match.all: the mask where all lanes of it match, else 0; the pair's predicate says so. */
static void translate_match(Translator *t)
{
    const bool all = word(t, "all");
    if (!all && !word(t, "any"))
        unknown(t, NULL);
    need_sync(t);
    const PtxType type = type_among(t, "b32 b64");
    operand_count(t, 3, 3);
    const PtxOperand *to = operand(t, 0);
    const bool two = to->kind == PTX_OP_PAIR;
    emit(t, "    {\n    const uint32_t mask = %s;\n", source(t, 2, PTX_B32));
    emit(t, "    uint32_t equal = t->service->match_any(t, %s, mask, %s);\n", source(t, 1, type),
         site(t));
    if (all)
        emit(t, "    const bool every = equal == mask;\n    equal = every ? mask : 0;\n");
    else if (two)
        unknown(t, NULL);
    assign(t, two ? &to->items[0] : to, PTX_B32, "equal");
    if (two)
        assign(t, &to->items[1], PTX_PRED, "every");
    emit(t, "    }\n");
}

static void translate_redux(Translator *t)
{
    static const struct {
        const char *name, *kind, *types;
    } rows[] = {{"add", "ADD", "u32 s32"}, {"min", "MIN", "u32 s32"}, {"max", "MAX", "u32 s32"},
                {"and", "AND", "b32"},     {"or", "OR", "b32"},       {"xor", "XOR", "b32"}};
    need_sync(t);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (word(t, rows[i].name)) {
            const PtxType type = type_among(t, rows[i].types);
            operand_count(t, 3, 3);
            assign_first(t, PTX_B32,
                         text(t, "t->service->reduce(t, SIM_RED_%s, %s, %s, %s, %s)", rows[i].kind,
                              type == PTX_S32 ? "true" : "false", source(t, 1, PTX_B32),
                              source(t, 2, PTX_B32), site(t)));
            return;
        }
    unknown(t, NULL);
}

static void translate_activemask(Translator *t)
{
    type_among(t, "b32");
    operand_count(t, 1, 1);
    assign_first(t, PTX_B32, "t->service->active_mask(t)");
}

/* Which threads a fence is for; the kind of order makes no difference here. */
static void translate_fence(Translator *t)
{
    int scope = -1;
    if (!word(t, "sc"))
        word(t, "acq_rel");
    if (word(t, "cta"))
        scope = 0;
    else if (word(t, "gl") || word(t, "gpu") || word(t, "cluster"))
        scope = 1;
    else if (word(t, "sys"))
        scope = 2;
    operand_count(t, 0, 0);
    if (scope < 0)
        unknown(t, NULL);
    emit(t, "    t->service->fence(t, %d);\n", scope);
}

const TranslateRow translate_warp_rows[] = {
    {"bar", translate_bar},
    {"barrier", translate_bar},
    {"shfl", translate_shfl},
    {"vote", translate_vote},
    {"match", translate_match},
    {"redux", translate_redux},
    {"activemask", translate_activemask},
    {"membar", translate_fence},
    {"fence", translate_fence},
    {NULL, NULL},
};
