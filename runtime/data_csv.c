/* data_csv.c - numbers in lines of text.
 *
 * In: one sample a line, its numbers divided by commas, perhaps in quotes; perhaps a
 * first line of names, which is one that holds anything but numbers. Out: an Array of
 * the input's own type for every input, whose columns stand side by side in the file.
 * Errors name the line and the column, both from 1.
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"

typedef struct {
    const char *at;
    int64_t line;
    const char *path;
    Problem *p;
} Reader;

static bool field_ends(char c)
{
    return c == ',' || c == '\n' || c == '\r' || c == '\0';
}

static int field_bad(const Reader *r, const char *start, int64_t column, const char *what)
{
    char shown[40];
    size_t n = strcspn(start, ",\r\n");
    return problem_set(r->p, EXIT_RUN, "%s:%lld: column %lld: '%s' %s", r->path, (long long)r->line,
                       (long long)column, text_printable(shown, sizeof shown, start, n), what);
}

/* Up to 15 digits need no rounding, and are what most files hold. */
static bool digits_read(const char **at, double *value)
{
    const char *s = *at;
    bool negative = *s == '-';
    s += negative;
    int64_t n = 0;
    int digits = 0;
    for (; *s >= '0' && *s <= '9' && digits < 16; s++, digits++)
        n = n * 10 + (*s - '0');
    if (digits == 0 || digits > 15 || !(field_ends(*s) || *s == '"'))
        return false;
    *value = negative ? -(double)n : (double)n;
    *at = s;
    return true;
}

/* The number at r->at, which moves to the comma or line end after it; false: no number. */
static bool field_read(Reader *r, double *value)
{
    const char *s = r->at;
    while (*s == ' ' || *s == '\t')
        s++;
    bool quoted = *s == '"';
    s += quoted;
    if (field_ends(*s) || isspace((unsigned char)*s)) /* strtod would go on to the next line */
        return false;
    if (!digits_read(&s, value)) {
        char *end;
        *value = strtod(s, &end);
        if (end == s)
            return false;
        s = end;
    }
    if (quoted && *s++ != '"')
        return false;
    while (*s == ' ' || *s == '\t')
        s++;
    if (!field_ends(*s))
        return false;
    r->at = s;
    return true;
}

static void line_end(Reader *r)
{
    r->at += strcspn(r->at, "\n");
    if (*r->at == '\n')
        r->at++;
    r->line++;
}

static bool line_blank(const char *s)
{
    return s[strspn(s, " \t\r")] == '\n' || s[strspn(s, " \t\r")] == '\0';
}

/* Whether the first line is names; and how many columns the file has. */
static bool line_is_header(const Reader *from, int64_t *columns)
{
    Reader r = *from;
    bool numbers = true;
    *columns = 1;
    for (const char *s = r.at; *s && *s != '\n'; s++)
        *columns += *s == ',';
    for (int64_t i = 0; numbers && i < *columns; i++) {
        double value;
        numbers = field_read(&r, &value);
        if (*r.at == ',')
            r.at++;
    }
    return !numbers;
}

static int value_store(const Reader *r, const char *start, int64_t column, const MdlInput *input,
                       void *out, int64_t at, double value)
{
    if (input->type == MDL_REAL) {
        real x = (real)value;
        if (!isfinite(x))
            return field_bad(r, start, column, "is not a finite number");
        ((real *)out)[at] = x;
        return MDL_OK;
    }
    if (type_is_half(input->type)) {
        if (half_round_real(input->type, value, &((uint16_t *)out)[at]))
            return MDL_OK;
        return field_bad(r, start, column,
                         !isfinite(value)          ? "is not a finite number"
                         : input->type == MDL_BF16 ? "is out of the range of bf16"
                                                   : "is out of the range of f16");
    }
    if (!(value >= INT32_MIN && value <= INT32_MAX) || value != floor(value))
        return field_bad(r, start, column, "is no whole number of 32 bits");
    ((int32_t *)out)[at] = (int32_t)value;
    return MDL_OK;
}

static int row_read(Reader *r, Array *arrays, const MdlInput *inputs, const int *order, int n,
                    int64_t row)
{
    int64_t column = 1;
    for (int k = 0; k < n; k++) {
        Array *a = &arrays[order[k]];
        int64_t count = a->dim[1];
        for (int64_t i = 0; i < count; i++, column++) {
            if (column > 1 && *r->at++ != ',')
                return problem_set(r->p, EXIT_RUN, "%s:%lld: ends after column %lld", r->path,
                                   (long long)r->line, (long long)column - 1);
            const char *start = r->at;
            double value;
            if (!field_read(r, &value))
                return field_bad(r, start, column, "is not a number");
            TRY(value_store(r, start, column, &inputs[order[k]], a->memory, row * count + i,
                            value));
        }
    }
    if (*r->at == '\r' && r->at[1] != '\n' && r->at[1] != '\0')
        return problem_set(r->p, EXIT_RUN,
                           "%s:%lld: lines end in a carriage return alone; convert it, such as "
                           "with tr '\\r' '\\n'",
                           r->path, (long long)r->line);
    if (*r->at == ',')
        return problem_set(r->p, EXIT_RUN, "%s:%lld: has more than %lld columns", r->path,
                           (long long)r->line, (long long)column - 1);
    return MDL_OK;
}

/* What an input's columns are kept as. */
static ElementType element_of(const MdlInput *input)
{
    switch (input->type) {
    case MDL_REAL:
        return sizeof(real) == 8 ? ELEMENT_F64 : ELEMENT_F32;
    case MDL_BF16:
        return ELEMENT_BF16;
    case MDL_F16:
        return ELEMENT_F16;
    default:
        return ELEMENT_I32;
    }
}

/* Checks the number of columns and makes room for as many samples as there are lines. */
static int arrays_make(Reader *r, Array *arrays, const MdlInput *inputs, const int *order, int n,
                       int64_t found)
{
    int64_t wanted = 0, rows = 0;
    for (const char *s = r->at; *s; s += strcspn(s, "\n"), s += *s == '\n')
        rows += !line_blank(s);
    if (rows == 0)
        return problem_set(r->p, EXIT_RUN, "%s: holds no samples", r->path);
    for (int k = 0; k < n; k++) {
        const MdlInput *input = &inputs[order[k]];
        Array *a = &arrays[order[k]];
        int64_t count, elements, bytes;
        const ElementType type = element_of(input);
        if (!size_product(&count, input->dim, input->rank) ||
            __builtin_mul_overflow(count, rows, &elements) ||
            __builtin_mul_overflow(elements, element_size(type), &bytes) ||
            __builtin_add_overflow(wanted, count, &wanted))
            return problem_no_memory(r->p, r->path);
        /* Before the memory, so that a wrong file cannot ask for much of it. */
        if (wanted > found)
            continue;
        *a = (Array){
            .path = r->path, .type = type, .rank = 2, .dim = {rows, count}, .stride = count};
        a->memory = malloc((size_t)bytes + 1);
        if (!a->memory)
            return problem_no_memory(r->p, r->path);
        a->elements = a->memory;
    }
    if (wanted != found)
        return problem_set(r->p, EXIT_RUN, "%s: has %lld columns; the model's inputs need %lld",
                           r->path, (long long)found, (long long)wanted);
    return MDL_OK;
}

static int text_read(Reader *r, Array *arrays, const MdlInput *inputs, const int *order, int n)
{
    int64_t columns = 0;
    if (strncmp(r->at, "\xEF\xBB\xBF", 3) == 0) /* the byte order mark of some editors */
        r->at += 3;
    while (*r->at && line_blank(r->at))
        line_end(r);
    if (line_is_header(r, &columns))
        line_end(r);
    TRY(arrays_make(r, arrays, inputs, order, n, columns));
    for (int64_t row = 0; *r->at; line_end(r))
        if (!line_blank(r->at))
            TRY(row_read(r, arrays, inputs, order, n, row++));
    return MDL_OK;
}

int csv_read(Array *arrays, const MdlInput *inputs, const int *order, int n, const char *path,
             Problem *p)
{
    FileBytes file;
    TRY(file_map(&file, path, p));
    char *text = malloc(file.size + 1);
    int status = text ? MDL_OK : problem_no_memory(p, path);
    if (status == MDL_OK) {
        if (file.size > 0)
            memcpy(text, file.bytes, file.size);
        text[file.size] = '\0';
        if (strlen(text) != file.size)
            status = problem_set(p, EXIT_RUN, "%s: holds a zero byte; not a text file", path);
    }
    file_release(&file);
    Reader r = {text, 1, path, p};
    if (status == MDL_OK)
        status = text_read(&r, arrays, inputs, order, n);
    if (status != MDL_OK)
        for (int k = 0; k < n; k++)
            array_release(&arrays[order[k]]);
    free(text);
    return status;
}
