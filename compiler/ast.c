/* ast.c - the builders that the grammar calls, and expressions as text.
 *
 * In: pieces that the grammar has recognised. Out: nodes in the arena. The builders hold what the
 * grammar cannot say: positional arguments come first, and no tree is deeper than
 * AST_MAX_DEPTH. */
#include "parse.h"

#include <inttypes.h>
#include <string.h>

/* Expressions */

static Expr *expr_new(Parser *p, ExprKind kind, Place at)
{
    Expr *e = ARENA_NEW(p->arena, Expr);
    e->kind = kind;
    e->at = at;
    e->depth = 1;
    return e;
}

/* Makes e the parent of child (may be NULL). Past the limit it is said once, and parsing stops. */
static void adopt(Parser *p, Expr *e, const Expr *child)
{
    if (!child || child->depth < e->depth)
        return;
    e->depth = child->depth + 1;
    if (e->depth > AST_MAX_DEPTH)
        syntax_too_deep(p, e->at);
}

Expr *ast_int(Parser *p, Place at, int64_t n)
{
    Expr *e = expr_new(p, EXPR_INT, at);
    e->integer = n;
    return e;
}

Expr *ast_real(Parser *p, Place at, double n)
{
    Expr *e = expr_new(p, EXPR_REAL, at);
    e->real = n;
    return e;
}

Expr *ast_string(Parser *p, Place at, const char *text)
{
    Expr *e = expr_new(p, EXPR_STRING, at);
    e->text = text;
    return e;
}

Expr *ast_bool(Parser *p, Place at, bool truth)
{
    Expr *e = expr_new(p, EXPR_BOOL, at);
    e->truth = truth;
    return e;
}

Expr *ast_name(Parser *p, Name name)
{
    Expr *e = expr_new(p, EXPR_NAME, name.at);
    e->text = name.text;
    return e;
}

Expr *ast_list(Parser *p, Place at, ExprList of, bool round)
{
    Expr *e = expr_new(p, EXPR_LIST, at);
    e->list.of = of;
    e->list.round = round;
    for (int i = 0; i < of.n; i++)
        adopt(p, e, of.at[i]);
    return e;
}

Expr *ast_tuple(Parser *p, Place at, Expr *first, ExprList rest)
{
    ExprList all = ast_exprs(p, (ExprList){0}, first);
    for (int i = 0; i < rest.n; i++)
        all = ast_exprs(p, all, rest.at[i]);
    return ast_list(p, at, all, true);
}

Expr *ast_unary(Parser *p, Place at, AstOp op, Expr *a)
{
    Expr *e = expr_new(p, EXPR_UNARY, at);
    e->op = op;
    e->a = a;
    adopt(p, e, a);
    return e;
}

Expr *ast_binary(Parser *p, Place at, AstOp op, Expr *a, Expr *b)
{
    Expr *e = expr_new(p, EXPR_BINARY, at);
    e->op = op;
    e->a = a;
    e->b = b;
    adopt(p, e, a);
    adopt(p, e, b);
    return e;
}

Expr *ast_ternary(Parser *p, Place at, Expr *a, Expr *b, Expr *c)
{
    Expr *e = expr_new(p, EXPR_TERNARY, at);
    e->a = a;
    e->b = b;
    e->c = c;
    adopt(p, e, a);
    adopt(p, e, b);
    adopt(p, e, c);
    return e;
}

Expr *ast_call(Parser *p, Name callee, ArgList args, Expr *as)
{
    Expr *e = expr_new(p, EXPR_CALL, callee.at);
    e->call.callee = callee;
    e->call.args = args;
    e->call.as = as;
    for (int i = 0; i < args.n; i++)
        adopt(p, e, args.at[i].value);
    adopt(p, e, as);
    return e;
}

Expr *ast_member(Parser *p, Place at, Expr *base, Name name)
{
    Expr *e = expr_new(p, EXPR_MEMBER, at);
    e->member.base = base;
    e->member.name = name;
    adopt(p, e, base);
    return e;
}

Expr *ast_index(Parser *p, Place at, Expr *base, Expr *index)
{
    Expr *e = expr_new(p, EXPR_INDEX, at);
    e->index.base = base;
    e->index.index = index;
    adopt(p, e, base);
    adopt(p, e, index);
    return e;
}

Arg ast_arg(Expr *value)
{
    return (Arg){.at = value->at, .value = value};
}

Arg ast_named_arg(Name name, Expr *value)
{
    return (Arg){.name = name.text, .at = name.at, .value = value};
}

/* Lists */

ExprList ast_exprs(Parser *p, ExprList list, Expr *e)
{
    VEC_PUSH(p->arena, &list, e);
    return list;
}

ArgList ast_args(Parser *p, ArgList list, Arg arg)
{
    const Arg *last = list.n ? &list.at[list.n - 1] : NULL;
    if (!arg.name && last && last->name) {
        diag_error(p->diag, arg.at, "a positional argument after a named one");
        diag_note(p->diag, last->at, "'%s' is named here", last->name);
        diag_help(p->diag, "positional arguments come first");
    }
    VEC_PUSH(p->arena, &list, arg);
    return list;
}

NameList ast_names(Parser *p, NameList list, Name name)
{
    VEC_PUSH(p->arena, &list, name);
    return list;
}

BindingList ast_bindings(Parser *p, BindingList list, Name name, Expr *value)
{
    VEC_PUSH(p->arena, &list, (Binding){.name = name, .value = value});
    return list;
}

SettingList ast_settings(Parser *p, SettingList list, Name key, Expr *value)
{
    VEC_PUSH(p->arena, &list, (Setting){.key = key, .value = value});
    return list;
}

StmtList ast_stmts(Parser *p, StmtList list, Stmt *s)
{
    if (s)
        VEC_PUSH(p->arena, &list, s);
    return list;
}

/* Statements */

static Stmt *stmt_new(Parser *p, StmtKind kind, Place at)
{
    Stmt *s = ARENA_NEW(p->arena, Stmt);
    s->kind = kind;
    s->at = at;
    return s;
}

DeviceRef *ast_device(Parser *p, Place at, Name device, Expr *index)
{
    DeviceRef *d = ARENA_NEW(p->arena, DeviceRef);
    *d = (DeviceRef){.device = device, .index = index, .at = at};
    return d;
}

TypeExpr ast_type(Place at, Name element, ExprList dims)
{
    return (TypeExpr){.element = element, .dims = dims, .at = at};
}

Stmt *ast_input(Parser *p, StmtKind kind, Place at, Name name, TypeExpr type, Expr *init)
{
    Stmt *s = stmt_new(p, kind, at);
    s->input.name = name;
    s->input.type = type;
    s->input.init = init;
    return s;
}

Stmt *ast_bind(Parser *p, Place at, NameList names, bool tuple, Expr *value)
{
    Stmt *s = stmt_new(p, STMT_BIND, at);
    s->bind.names = names;
    s->bind.tuple = tuple;
    s->bind.value = value;
    return s;
}

Stmt *ast_for(Parser *p, Place at, Name counter, Expr *from, Expr *to, StmtList body)
{
    Stmt *s = stmt_new(p, STMT_FOR, at);
    s->loop.counter = counter;
    s->loop.from = from;
    s->loop.to = to;
    s->loop.body = body;
    return s;
}

Stmt *ast_else_if(Parser *p, Stmt *branch, Expr *condition, StmtList body)
{
    VEC_PUSH(p->arena, &branch->branch.arms, (IfArm){.condition = condition, .body = body});
    return branch;
}

Stmt *ast_if(Parser *p, Place at, Expr *condition, StmtList body)
{
    return ast_else_if(p, stmt_new(p, STMT_IF, at), condition, body);
}

Stmt *ast_else(Stmt *branch, StmtList body)
{
    branch->branch.otherwise = body;
    branch->branch.has_else = true;
    return branch;
}

Stmt *ast_on(Parser *p, Place at, DeviceRef *device, StmtList body)
{
    Stmt *s = stmt_new(p, STMT_ON, at);
    s->on.device = *device;
    s->on.body = body;
    return s;
}

Stmt *ast_group(Parser *p, StmtKind kind, Place at, StmtList body)
{
    Stmt *s = stmt_new(p, kind, at);
    s->body = body;
    return s;
}

Stmt *ast_value(Parser *p, StmtKind kind, Place at, Expr *value)
{
    Stmt *s = stmt_new(p, kind, at);
    s->value = value;
    return s;
}

Stmt *ast_placed(Stmt *s, DeviceRef *device)
{
    s->device = device;
    return s;
}

/* Items */

static Item *item_add(Parser *p, ItemKind kind, Place at)
{
    Item *item = ARENA_NEW(p->arena, Item);
    item->kind = kind;
    item->file = p->file;
    item->at = at;
    VEC_PUSH(p->arena, &p->items, item);
    p->skipping = false;
    return item;
}

void ast_add_consts(Parser *p, Place at, BindingList consts)
{
    item_add(p, ITEM_CONST, at)->consts = consts;
}

void ast_add_import(Parser *p, Place at, const char *path)
{
    item_add(p, ITEM_IMPORT, at)->import_path = (Name){.text = path, .at = at};
}

void ast_add_block(Parser *p, Name name, BindingList params, StmtList body)
{
    Item *item = item_add(p, ITEM_BLOCK, name.at);
    item->block.name = name;
    item->block.params = params;
    item->block.body = body;
}

void ast_add_model(Parser *p, Name name, StmtList body)
{
    Item *item = item_add(p, ITEM_MODEL, name.at);
    item->model.name = name;
    item->model.body = body;
}

void ast_add_devices(Parser *p, Name name, Expr *count, Expr *catalogue, SettingList settings)
{
    Item *item = item_add(p, ITEM_DEVICES, name.at);
    if (catalogue && catalogue->kind != EXPR_NAME)
        diag_error(p->diag, catalogue->at,
                   "expected the name of a catalogue entry, such as h100_80g");
    item->devices.name = name;
    item->devices.count = count;
    item->devices.catalogue = catalogue;
    item->devices.settings = settings;
}

void ast_add_settings(Parser *p, ItemKind kind, Place at, SettingList settings)
{
    item_add(p, kind, at)->settings = settings;
}

void ast_add_data(Parser *p, Name name, Expr *value)
{
    Item *item = item_add(p, ITEM_DATA, name.at);
    item->data.name = name;
    item->data.value = value;
}
