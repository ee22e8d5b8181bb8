/* model.y - the grammar of .mdl files. Actions only call the builders of compiler/parse.h.
 *
 * Words that start a statement or an item are names wherever the grammar allows one
 * (rule "name"): a setting may be called data, a weight's argument weight.
 *
 * After an error the parser goes on behind the next ; or after the next block in braces. */

%require "3.8"
%define api.pure full
%define api.prefix {mdl_}
%define api.location.type {Place}
%define parse.error custom
%define parse.lac full
%expect 0

%code requires {
#include "parse.h"

#ifndef YY_TYPEDEF_YY_SCANNER_T
#define YY_TYPEDEF_YY_SCANNER_T
typedef void *yyscan_t;
#endif
}

%param {yyscan_t scanner}
%parse-param {Parser *p}
%initial-action { @$ = (Place){.file = p->file, .line = 1, .col = 1, .len = 1}; }

%union {
    int64_t integer;
    double real;
    const char *text;
    Name name;
    Expr *expr;
    Stmt *stmt;
    DeviceRef *device;
    TypeExpr type;
    Arg arg;
    ExprList exprs;
    ArgList args;
    NameList names;
    BindingList bindings;
    SettingList settings;
    StmtList stmts;
}

%code provides {
/* The scanner speaks of its own prefix-less types. */
#define YYSTYPE MDL_STYPE
#define YYLTYPE MDL_LTYPE
int mdl_lex(YYSTYPE *value, YYLTYPE *at, yyscan_t scanner);
/* What starts with a digit at the scanner's place: INT, REAL, QUANTITY or WORD. */
int scan_number(Parser *p, YYSTYPE *value, size_t *length);
}

%code {
static void mdl_error(const Place *at, yyscan_t scanner, Parser *p, const char *message);

/* What stands on one line, from the first symbol to the last; else the first. */
#define YYLLOC_DEFAULT(Current, Rhs, N) ((Current) = join_places((Rhs), (N)))
static Place join_places(const Place *rhs, int n)
{
    if (!n)
        return rhs[0];
    Place at = rhs[1];
    if (rhs[n].line == at.line)
        at.len = rhs[n].col + rhs[n].len - at.col;
    return at;
}
}

%token END 0 "the end of the file"
%token <name> NAME "a name"
%token <name> WORD "a word"
%token <integer> INT "an integer"
%token <real> REAL "a number"
%token <expr> QUANTITY "a quantity"
%token <text> STRING "a string"
%token TRUE "'true'" FALSE "'false'"

%token <name> INPUT "'input'" TARGET "'target'" WEIGHT "'weight'" ON "'on'"
%token <name> RECOMPUTE "'recompute'" FREEZE "'freeze'" LOSS "'loss'" METRIC "'metric'"
%token <name> BLOCK "'block'" MODEL "'model'" DEVICES "'devices'" PARALLEL "'parallel'"
%token <name> TRAIN "'train'" DATA "'data'"
%token CONST "'const'" IMPORT "'import'" FOR "'for'" IN "'in'" IF "'if'" ELSE "'else'"
%token RETURN "'return'" AS "'as'"

%token RANGE "'..'" OR "'||'" AND "'&&'" EQ "'=='" NE "'!='" LE "'<='" GE "'>='"

%right '?' ':'
%left OR
%left AND
%left EQ NE
%left '<' LE '>' GE
%left '+' '-'
%left '*' '/' '%'
%precedence UNARY

%type <name> name
%type <expr> expr value path call initial
%type <exprs> exprs
%type <arg> arg
%type <args> args arg_list
%type <names> names tuple
%type <bindings> consts params param_list
%type <settings> settings setting_list
%type <device> device annotation
%type <type> type
%type <stmt> statement simple branch
%type <stmts> body statements

%%

file
    : items
    ;

items
    : %empty
    | items item
    ;

item
    : CONST consts ';'                          { ast_add_consts(p, @1, $2); }
    | IMPORT STRING ';'                         { ast_add_import(p, @2, $2); }
    | BLOCK name '(' params ')' body            { ast_add_block(p, $2, $4, $6); }
    | MODEL name body                           { ast_add_model(p, $2, $3); }
    | DEVICES name '[' expr ']' '=' value ';'   { ast_add_devices(p, $2, $4, $7,
                                                                  (SettingList){0}); }
    | DEVICES name '[' expr ']' settings        { ast_add_devices(p, $2, $4, NULL, $6); }
    | PARALLEL settings                         { ast_add_settings(p, ITEM_PARALLEL, @1, $2); }
    | TRAIN settings                            { ast_add_settings(p, ITEM_TRAIN, @1, $2); }
    | DATA name '=' expr ';'                    { ast_add_data(p, $2, $4); }
    | error ';'                                 { syntax_skip(p); yyerrok; }
    | error '}'                                 { syntax_skip(p); yyerrok; }
    | error skipped                             { yyerrok; }
    ;

consts
    : name '=' expr                     { $$ = ast_bindings(p, (BindingList){0}, $1, $3); }
    | consts ',' name '=' expr          { $$ = ast_bindings(p, $1, $3, $5); }
    ;

params
    : %empty                            { $$ = (BindingList){0}; }
    | param_list
    ;

param_list
    : name                              { $$ = ast_bindings(p, (BindingList){0}, $1, NULL); }
    | name '=' expr                     { $$ = ast_bindings(p, (BindingList){0}, $1, $3); }
    | param_list ',' name               { $$ = ast_bindings(p, $1, $3, NULL); }
    | param_list ',' name '=' expr      { $$ = ast_bindings(p, $1, $3, $5); }
    ;

/* devices, parallel, train */

settings
    : '{' setting_list '}'              { $$ = $2; }
    | '{' setting_list error '}'        { $$ = $2; yyerrok; }
    ;

setting_list
    : %empty                            { $$ = (SettingList){0}; }
    | setting_list name '=' value ';'   { $$ = ast_settings(p, $1, $2, $4); }
    | setting_list error ';'            { $$ = $1; yyerrok; }
    ;

value
    : expr
    | WORD                              { $$ = ast_name(p, $1); }
    ;

/* The braces of an item whose head was wrong: they may hold either kind. */

skipped
    : '{' entries '}'
    | '{' entries error '}'
    ;

entries
    : %empty
    | entries statement
    | entries name '=' WORD ';'
    ;

/* Statements */

body
    : '{' statements '}'                { $$ = $2; }
    | '{' statements error '}'          { $$ = $2; yyerrok; }
    ;

statements
    : %empty                            { $$ = (StmtList){0}; }
    | statements statement              { $$ = ast_stmts(p, $1, $2); }
    ;

statement
    : simple annotation ';'             { $$ = ast_placed($1, $2); }
    | FOR name IN expr RANGE expr body  { $$ = ast_for(p, @1, $2, $4, $6, $7); }
    | branch
    | branch ELSE body                  { $$ = ast_else($1, $3); }
    | ON device body                    { $$ = ast_on(p, @1, $2, $3); }
    | RECOMPUTE body                    { $$ = ast_group(p, STMT_RECOMPUTE, @1, $2); }
    | FREEZE body                       { $$ = ast_group(p, STMT_FREEZE, @1, $2); }
    | error ';'                         { $$ = NULL; yyerrok; }
    | error body                        { $$ = NULL; yyerrok; }
    ;

simple
    : INPUT name ':' type               { $$ = ast_input(p, STMT_INPUT, @1, $2, $4, NULL); }
    | TARGET name ':' type              { $$ = ast_input(p, STMT_TARGET, @1, $2, $4, NULL); }
    | WEIGHT name ':' type initial      { $$ = ast_input(p, STMT_WEIGHT, @1, $2, $4, $5); }
    | name '=' expr                     { $$ = ast_bind(p, @1, ast_names(p, (NameList){0}, $1),
                                                        false, $3); }
    | tuple '=' expr                    { $$ = ast_bind(p, @1, $1, true, $3); }
    | LOSS expr                         { $$ = ast_value(p, STMT_LOSS, @1, $2); }
    | METRIC expr                       { $$ = ast_value(p, STMT_METRIC, @1, $2); }
    | RETURN expr                       { $$ = ast_value(p, STMT_RETURN, @1, $2); }
    ;

tuple
    : '(' names ')'                     { $$ = $2; }
    ;

names
    : name                              { $$ = ast_names(p, (NameList){0}, $1); }
    | names ',' name                    { $$ = ast_names(p, $1, $3); }
    ;

branch
    : IF '(' expr ')' body              { $$ = ast_if(p, @1, $3, $5); }
    | branch ELSE IF '(' expr ')' body  { $$ = ast_else_if(p, $1, $5, $7); }
    ;

initial
    : %empty                            { $$ = NULL; }
    | '=' expr                          { $$ = $2; }
    ;

annotation
    : %empty                            { $$ = NULL; }
    | '@' device                        { $$ = $2; }
    ;

device
    : name '[' expr ']'                 { $$ = ast_device(p, @$, $1, $3); }
    ;

type
    : name                              { $$ = ast_type(@$, $1, (ExprList){0}); }
    | name '[' ']'                      { $$ = ast_type(@$, $1, (ExprList){0}); }
    | name '[' exprs ']'                { $$ = ast_type(@$, $1, $3); }
    ;

/* Expressions */

expr
    : INT                               { $$ = ast_int(p, @$, $1); }
    | REAL                              { $$ = ast_real(p, @$, $1); }
    | QUANTITY
    | STRING                            { $$ = ast_string(p, @$, $1); }
    | TRUE                              { $$ = ast_bool(p, @$, true); }
    | FALSE                             { $$ = ast_bool(p, @$, false); }
    | path
    | call
    | call AS path                      { $$ = ast_call(p, $1->call.callee, $1->call.args, $3); }
    | '(' expr ')'                      { $$ = $2; }
    | '(' expr ',' exprs ')'            { $$ = ast_tuple(p, @$, $2, $4); }
    | '[' ']'                           { $$ = ast_list(p, @$, (ExprList){0}, false); }
    | '[' exprs ']'                     { $$ = ast_list(p, @$, $2, false); }
    | '-' expr %prec UNARY              { $$ = ast_unary(p, @1, AST_NEG, $2); }
    | '!' expr %prec UNARY              { $$ = ast_unary(p, @1, AST_NOT, $2); }
    | expr '*' expr                     { $$ = ast_binary(p, @2, AST_MUL, $1, $3); }
    | expr '/' expr                     { $$ = ast_binary(p, @2, AST_DIV, $1, $3); }
    | expr '%' expr                     { $$ = ast_binary(p, @2, AST_MOD, $1, $3); }
    | expr '+' expr                     { $$ = ast_binary(p, @2, AST_ADD, $1, $3); }
    | expr '-' expr                     { $$ = ast_binary(p, @2, AST_SUB, $1, $3); }
    | expr '<' expr                     { $$ = ast_binary(p, @2, AST_LT, $1, $3); }
    | expr LE expr                      { $$ = ast_binary(p, @2, AST_LE, $1, $3); }
    | expr '>' expr                     { $$ = ast_binary(p, @2, AST_GT, $1, $3); }
    | expr GE expr                      { $$ = ast_binary(p, @2, AST_GE, $1, $3); }
    | expr EQ expr                      { $$ = ast_binary(p, @2, AST_EQ, $1, $3); }
    | expr NE expr                      { $$ = ast_binary(p, @2, AST_NE, $1, $3); }
    | expr AND expr                     { $$ = ast_binary(p, @2, AST_AND, $1, $3); }
    | expr OR expr                      { $$ = ast_binary(p, @2, AST_OR, $1, $3); }
    | expr '?' expr ':' expr            { $$ = ast_ternary(p, @2, $1, $3, $5); }
    ;

exprs
    : expr                              { $$ = ast_exprs(p, (ExprList){0}, $1); }
    | exprs ',' expr                    { $$ = ast_exprs(p, $1, $3); }
    ;

call
    : name '(' args ')'                 { $$ = ast_call(p, $1, $3, NULL); }
    ;

args
    : %empty                            { $$ = (ArgList){0}; }
    | arg_list
    ;

arg_list
    : arg                               { $$ = ast_args(p, (ArgList){0}, $1); }
    | arg_list ',' arg                  { $$ = ast_args(p, $1, $3); }
    ;

arg
    : expr                              { $$ = ast_arg($1); }
    | name '=' expr                     { $$ = ast_named_arg($1, $3); }
    ;

/* h[0].attn.c_attn.weight, and the names that "as" gives. */

path
    : name                              { $$ = ast_name(p, $1); }
    | path '.' name                     { $$ = ast_member(p, @$, $1, $3); }
    | path '[' expr ']'                 { $$ = ast_index(p, @$, $1, $3); }
    ;

name
    : NAME
    | INPUT | TARGET | WEIGHT | ON | RECOMPUTE | FREEZE | LOSS | METRIC
    | BLOCK | MODEL | DEVICES | PARALLEL | TRAIN | DATA
    ;

%%

static int yyreport_syntax_error(const yypcontext_t *context, yyscan_t scanner, Parser *p)
{
    (void)scanner;
    yysymbol_kind_t expected[YYNTOKENS];
    const char *words[YYNTOKENS];
    int n = yypcontext_expected_tokens(context, expected, YYNTOKENS);
    for (int i = 0; i < n; i++)
        words[i] = yysymbol_name(expected[i]);
    syntax_report(p, words, n > 0 ? n : 0);
    return 0;
}

/* Syntax errors take the way above; what is left is a stack that grew too deep. */
static void mdl_error(const Place *at, yyscan_t scanner, Parser *p, const char *message)
{
    (void)scanner;
    (void)message;
    syntax_too_deep(p, *at);
}
