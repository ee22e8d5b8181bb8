/* ast_dump.c - prints the tree as --dump=ast shows it.
 *
 * In: the Ast. Out: the language's own layout, one statement a line, with parentheses around every
 * operation that is an operand, so that precedence can be seen. Two texts with the same dump mean
 * the same. */
#include "ast_show.h"
#include "front.h"

static void indent(Text *t, int level)
{
    text_printf(t, "%*s", level * 4, "");
}

static void dump_body(Text *t, const StmtList *body, int level);

static void dump_device(Text *t, const DeviceRef *d)
{
    text_printf(t, "%s[", d->device.text);
    text_add_expr(t, d->index, true);
    text_add(t, "]");
}

static void dump_type(Text *t, const TypeExpr *type)
{
    text_add(t, type->element.text);
    if (type->dims.n) {
        text_add(t, "[");
        text_add_exprs(t, &type->dims, true);
        text_add(t, "]");
    }
}

static void dump_input(Text *t, const char *word, const Stmt *s)
{
    text_printf(t, "%s %s : ", word, s->input.name.text);
    dump_type(t, &s->input.type);
    if (s->input.init) {
        text_add(t, " = ");
        text_add_expr(t, s->input.init, true);
    }
}

static void dump_bind(Text *t, const Stmt *s)
{
    text_add(t, s->bind.tuple ? "(" : "");
    for (int i = 0; i < s->bind.names.n; i++)
        text_printf(t, "%s%s", i ? ", " : "", s->bind.names.at[i].text);
    text_add(t, s->bind.tuple ? ") = " : " = ");
    text_add_expr(t, s->bind.value, true);
}

static void dump_branch(Text *t, const Stmt *s, int level)
{
    for (int i = 0; i < s->branch.arms.n; i++) {
        text_add(t, i ? " else if (" : "if (");
        text_add_expr(t, s->branch.arms.at[i].condition, true);
        text_add(t, ")");
        dump_body(t, &s->branch.arms.at[i].body, level);
    }
    if (s->branch.has_else) {
        text_add(t, " else");
        dump_body(t, &s->branch.otherwise, level);
    }
}

static void dump_value(Text *t, const char *word, const Stmt *s)
{
    text_printf(t, "%s ", word);
    text_add_expr(t, s->value, true);
}

/* Statements that end in ; */
static void dump_simple(Text *t, const Stmt *s)
{
    switch (s->kind) {
    case STMT_INPUT:
        dump_input(t, "input", s);
        break;
    case STMT_TARGET:
        dump_input(t, "target", s);
        break;
    case STMT_WEIGHT:
        dump_input(t, "weight", s);
        break;
    case STMT_BIND:
        dump_bind(t, s);
        break;
    case STMT_LOSS:
        dump_value(t, "loss", s);
        break;
    case STMT_METRIC:
        dump_value(t, "metric", s);
        break;
    default:
        dump_value(t, "return", s);
        break;
    }
    if (s->device) {
        text_add(t, " @");
        dump_device(t, s->device);
    }
    text_add(t, ";");
}

static void dump_stmt(Text *t, const Stmt *s, int level)
{
    indent(t, level);
    switch (s->kind) {
    case STMT_FOR:
        text_printf(t, "for %s in ", s->loop.counter.text);
        text_add_expr(t, s->loop.from, true);
        text_add(t, " .. ");
        text_add_expr(t, s->loop.to, true);
        dump_body(t, &s->loop.body, level);
        break;
    case STMT_IF:
        dump_branch(t, s, level);
        break;
    case STMT_ON:
        text_add(t, "on ");
        dump_device(t, &s->on.device);
        dump_body(t, &s->on.body, level);
        break;
    case STMT_RECOMPUTE:
    case STMT_FREEZE:
        text_add(t, s->kind == STMT_FREEZE ? "freeze" : "recompute");
        dump_body(t, &s->body, level);
        break;
    default:
        dump_simple(t, s);
        break;
    }
    text_add(t, "\n");
}

static void dump_body(Text *t, const StmtList *body, int level)
{
    text_add(t, " {\n");
    for (int i = 0; i < body->n; i++)
        dump_stmt(t, body->at[i], level + 1);
    indent(t, level);
    text_add(t, "}");
}

static void dump_bindings(Text *t, const BindingList *list)
{
    for (int i = 0; i < list->n; i++) {
        text_printf(t, "%s%s", i ? ", " : "", list->at[i].name.text);
        if (list->at[i].value) {
            text_add(t, " = ");
            text_add_expr(t, list->at[i].value, true);
        }
    }
}

static void dump_settings(Text *t, const SettingList *list)
{
    text_add(t, " {\n");
    for (int i = 0; i < list->n; i++) {
        indent(t, 1);
        text_printf(t, "%s = ", list->at[i].key.text);
        text_add_expr(t, list->at[i].value, true);
        text_add(t, ";\n");
    }
    text_add(t, "}");
}

static void dump_devices(Text *t, const Item *item)
{
    text_printf(t, "devices %s[", item->devices.name.text);
    text_add_expr(t, item->devices.count, true);
    text_add(t, "]");
    if (item->devices.catalogue)
        text_printf(t, " = %s;", item->devices.catalogue->text);
    else
        dump_settings(t, &item->devices.settings);
}

static void dump_item(Text *t, const Item *item)
{
    switch (item->kind) {
    case ITEM_CONST:
        text_add(t, "const ");
        dump_bindings(t, &item->consts);
        text_add(t, ";");
        break;
    case ITEM_IMPORT:
        text_add(t, "import ");
        text_add_quoted(t, item->import_path.text);
        text_add(t, ";");
        break;
    case ITEM_BLOCK:
        text_printf(t, "block %s(", item->block.name.text);
        dump_bindings(t, &item->block.params);
        text_add(t, ")");
        dump_body(t, &item->block.body, 0);
        break;
    case ITEM_MODEL:
        text_printf(t, "model %s", item->model.name.text);
        dump_body(t, &item->model.body, 0);
        break;
    case ITEM_DEVICES:
        dump_devices(t, item);
        break;
    case ITEM_PARALLEL:
    case ITEM_TRAIN:
        text_add(t, item->kind == ITEM_TRAIN ? "train" : "parallel");
        dump_settings(t, &item->settings);
        break;
    case ITEM_DATA:
        text_printf(t, "data %s = ", item->data.name.text);
        text_add_expr(t, item->data.value, true);
        text_add(t, ";");
        break;
    }
    text_add(t, "\n");
}

void ast_dump(const struct Ast *ast, FILE *to)
{
    for (int i = 0; i < ast->items.n; i++) {
        Text t = {.arena = ast->arena};
        dump_item(&t, ast->items.at[i]);
        fputs(t.at, to);
    }
}
