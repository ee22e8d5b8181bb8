/* data_npy.c - NumPy's .npy files, versions 1 to 3.
 *
 * In: magic, version, header length, a Python dictionary such as
 *     {'descr': '<f4', 'fortran_order': False, 'shape': (60000, 784), }
 * and the elements. Out: an Array over the mapped file. The dictionary is read by a
 * parser of just that: three keys in any order, each exactly once.
 */
#include <string.h>

#include "data.h"

typedef struct {
    const char *at, *end;
    const char *path;
    Problem *p;
} Reader;

static int header_bad(Reader *r, const char *what)
{
    return problem_set(r->p, EXIT_RUN, "%s: damaged .npy header: %s", r->path, what);
}

static void skip_space(Reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t'))
        r->at++;
}

static bool take(Reader *r, char c)
{
    skip_space(r);
    if (r->at >= r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* A quoted string without escapes, into text[size]. */
static bool take_string(Reader *r, char *text, size_t size)
{
    skip_space(r);
    if (r->at >= r->end || (*r->at != '\'' && *r->at != '"'))
        return false;
    char quote = *r->at++;
    size_t n = 0;
    while (r->at < r->end && *r->at != quote) {
        if (*r->at == '\\' || n + 1 >= size)
            return false;
        text[n++] = *r->at++;
    }
    text[n] = '\0';
    return r->at < r->end && *r->at++ == quote;
}

static bool take_word(Reader *r, const char *word)
{
    skip_space(r);
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0)
        return false;
    r->at += n;
    return true;
}

static int read_descr(Reader *r, Array *a)
{
    static const struct {
        const char *code;
        ElementType type;
    } types[] = {{"b1", ELEMENT_BOOL}, {"u1", ELEMENT_U8},  {"i1", ELEMENT_I8},
                 {"u2", ELEMENT_U16},  {"i2", ELEMENT_I16}, {"u4", ELEMENT_U32},
                 {"i4", ELEMENT_I32},  {"u8", ELEMENT_U64}, {"i8", ELEMENT_I64},
                 {"f4", ELEMENT_F32},  {"f8", ELEMENT_F64}, {"f2", ELEMENT_F16},
                 {"V2", ELEMENT_BF16} /* what NumPy calls the bfloat16 of ml_dtypes */};
    char descr[64];
    if (!take_string(r, descr, sizeof descr))
        return problem_set(r->p, EXIT_RUN,
                           "%s: elements are not plain numbers; save one array of f4 or i4",
                           r->path);
    a->big_endian = descr[0] == '>';
    if (descr[0] != '\0' && strchr("<>|=", descr[0]))
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            if (strcmp(descr + 1, types[i].code) == 0) {
                a->type = types[i].type;
                return MDL_OK;
            }
    char shown[64];
    return problem_set(r->p, EXIT_RUN,
                       "%s: elements of type '%s' cannot be read; convert them, such as with "
                       "numpy's .astype('float32')",
                       r->path, text_printable(shown, sizeof shown, descr, strlen(descr)));
}

static int read_shape(Reader *r, Array *a)
{
    if (!take(r, '('))
        return header_bad(r, "the shape is no tuple");
    a->rank = 0;
    while (!take(r, ')')) {
        skip_space(r);
        int64_t n = 0;
        const char *start = r->at;
        for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
            if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *r->at - '0', &n))
                return header_bad(r, "a dimension is too large");
        if (r->at == start)
            return header_bad(r, "the shape is no tuple of numbers");
        if (a->rank == ARRAY_RANK)
            return header_bad(r, "too many dimensions");
        a->dim[a->rank++] = n;
        if (!take(r, ',') && (r->at >= r->end || *r->at != ')'))
            return header_bad(r, "the shape is not closed");
    }
    return MDL_OK;
}

static int read_order(Reader *r)
{
    if (take_word(r, "False"))
        return MDL_OK;
    if (!take_word(r, "True"))
        return header_bad(r, "fortran_order is neither True nor False");
    return problem_set(r->p, EXIT_RUN,
                       "%s: elements are in Fortran order; save numpy.ascontiguousarray(x) instead",
                       r->path);
}

static int read_dictionary(Reader *r, Array *a)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    unsigned seen = 0;
    if (!take(r, '{'))
        return header_bad(r, "no dictionary");
    while (!take(r, '}')) {
        char key[32];
        if (!take_string(r, key, sizeof key) || !take(r, ':'))
            return header_bad(r, "a key is missing");
        unsigned which = 0;
        while (which < 3 && strcmp(key, keys[which]) != 0)
            which++;
        if (which == 3 || seen & 1u << which)
            return header_bad(r, "an unknown key, or one twice");
        seen |= 1u << which;
        TRY(which == 0 ? read_descr(r, a) : which == 1 ? read_order(r) : read_shape(r, a));
        if (!take(r, ',') && (r->at >= r->end || *r->at != '}'))
            return header_bad(r, "the dictionary is not closed");
    }
    return seen == 7 ? MDL_OK : header_bad(r, "a key is missing");
}

static int read_header(Array *a, Problem *p)
{
    const unsigned char *b = a->file.bytes;
    size_t size = a->file.size;
    if (size < 10 || memcmp(b, "\x93NUMPY", 6) != 0)
        return problem_set(p, EXIT_RUN, "%s: not an .npy file", a->path);
    if (b[6] < 1 || b[6] > 3)
        return problem_set(p, EXIT_RUN, "%s: .npy version %d is not known; 1 to 3 are", a->path,
                           b[6]);
    size_t start = b[6] == 1 ? 10 : 12;
    size_t length = (size_t)b[8] | (size_t)b[9] << 8;
    if (b[6] > 1 && size >= 12)
        length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
    if (size < start || length > size - start)
        return problem_set(p, EXIT_RUN, "%s: cut off in its header", a->path);
    Reader r = {(const char *)b + start, (const char *)b + start + length, a->path, p};
    TRY(read_dictionary(&r, a));

    int64_t count, bytes;
    if (!size_product(&count, a->dim, a->rank) ||
        __builtin_mul_overflow(count, element_size(a->type), &bytes))
        return header_bad(&r, "the shape is too large");
    size_t rest = size - start - length;
    if ((uint64_t)bytes != rest)
        return problem_set(p, EXIT_RUN,
                           "%s: %s; its shape needs %lld bytes of elements and there are %zu",
                           a->path, (uint64_t)bytes > rest ? "cut off" : "longer than it says",
                           (long long)bytes, rest);
    a->elements = b + start + length;
    return MDL_OK;
}

int npy_read(Array *a, const char *path, Problem *p)
{
    *a = (Array){.path = path};
    TRY(file_map(&a->file, path, p));
    int status = read_header(a, p);
    if (status != MDL_OK)
        array_release(a);
    return status;
}
