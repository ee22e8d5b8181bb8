/* tensors_read.c - opening safetensors files, which are not believed.
 *
 * In: a file from anywhere. Out: its tensors, sorted by name, whose types, shapes and
 * offsets agree with each other and with the file's size, which lie side by side from
 * the first byte after the header to the last of the file, and whose checksum, where
 * there is one, is right.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "safetensors.h"

enum { HEADER_MOST = 100 * 1000 * 1000, PIECE = 1 << 20, CHECKSUM_DIGITS = 16 };

struct TensorFile {
    int fd;
    char *path;
    uint64_t size, data; /* of the file; where the elements start */
    char *header;
    json_t *root; /* owns the tensors' names */
    const json_t *metadata;
    Tensor *tensors;
    int64_t n;
};

static int file_bad(const TensorFile *f, const char *what, Problem *p)
{
    return problem_set(p, EXIT_RUN, "%s: not a sound safetensors file: %s", f->path, what);
}

static int tensor_bad(const TensorFile *f, const char *name, const char *what, Problem *p)
{
    char shown[120];
    return problem_set(p, EXIT_RUN, "%s: tensor '%s': %s", f->path,
                       text_printable(shown, sizeof shown, name, strlen(name)), what);
}

static int bytes_read(const TensorFile *f, uint64_t at, void *out, size_t size, Problem *p)
{
    char *to = out;
    while (size > 0) {
        ssize_t n = pread(f->fd, to, size, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return problem_set(p, EXIT_RUN, "%s: %s", f->path,
                               n < 0 ? strerror(errno) : "is shorter than it was");
        to += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return MDL_OK;
}

/* The type named `dtype` and its bytes; 0 bytes when it is not known. */
static TensorType type_from_name(const char *dtype, uint64_t *bytes)
{
    static const struct {
        const char *name;
        uint64_t bytes;
        TensorType type;
    } types[] = {
        {"F32", 4, TENSOR_F32},   {"F64", 8, TENSOR_F64},       {"F16", 2, TENSOR_F16},
        {"BF16", 2, TENSOR_BF16}, {"BOOL", 1, TENSOR_OTHER},    {"U8", 1, TENSOR_OTHER},
        {"I8", 1, TENSOR_OTHER},  {"I16", 2, TENSOR_OTHER},     {"U16", 2, TENSOR_OTHER},
        {"I32", 4, TENSOR_OTHER}, {"U32", 4, TENSOR_OTHER},     {"I64", 8, TENSOR_OTHER},
        {"U64", 8, TENSOR_OTHER}, {"F8_E4M3", 1, TENSOR_OTHER}, {"F8_E5M2", 1, TENSOR_OTHER}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(dtype, types[i].name) == 0) {
            *bytes = types[i].bytes;
            return types[i].type;
        }
    *bytes = 0;
    return TENSOR_OTHER;
}

static int shape_read(const TensorFile *f, Tensor *t, const json_t *shape, Problem *p)
{
    if (!json_is_array(shape))
        return tensor_bad(f, t->name, "has no shape", p);
    size_t rank = json_array_size(shape);
    if (rank > 64)
        return tensor_bad(f, t->name, "has too many dimensions", p);
    t->rank = (int)rank;
    t->count = 1;
    bool zero = false;
    for (size_t i = 0; i < rank; i++) {
        const json_t *d = json_array_get(shape, i);
        json_int_t dim = json_is_integer(d) ? json_integer_value(d) : -1;
        zero |= dim == 0;
        if (dim < 0 || (dim > 0 && __builtin_mul_overflow(t->count, (int64_t)dim, &t->count)))
            return tensor_bad(f, t->name, "has a dimension that is no size, or is too large", p);
        if (i < MDL_RANK)
            t->dim[i] = dim;
    }
    if (zero)
        t->count = 0;
    return MDL_OK;
}

static int tensor_read(const TensorFile *f, Tensor *t, const json_t *value, Problem *p)
{
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    if (!dtype)
        return tensor_bad(f, t->name, "has no dtype", p);
    uint64_t bytes, need;
    t->type = type_from_name(dtype, &bytes);
    TRY(shape_read(f, t, json_object_get(value, "shape"), p));
    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
        return tensor_bad(f, t->name, "has no sound data_offsets", p);
    t->begin = (uint64_t)json_integer_value(begin);
    t->end = (uint64_t)json_integer_value(end);
    if (t->end > f->size - f->data)
        return tensor_bad(f, t->name, "lies beyond the end of the file", p);
    if (bytes > 0 &&
        (__builtin_mul_overflow((uint64_t)t->count, bytes, &need) || need != t->end - t->begin))
        return tensor_bad(f, t->name, "its shape and its data_offsets do not agree", p);
    return MDL_OK;
}

static int by_place(const void *a, const void *b)
{
    const Tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    const Tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* All tensors side by side in order of place, without overlap or hole; then by name. */
static int tensors_collect(TensorFile *f, Problem *p)
{
    f->tensors = calloc(json_object_size(f->root) + 1, sizeof *f->tensors);
    if (!f->tensors)
        return problem_no_memory(p, f->path);
    const char *key;
    json_t *value;
    json_object_foreach(f->root, key, value)
    {
        if (strcmp(key, "__metadata__") == 0) {
            f->metadata = value;
            continue;
        }
        Tensor *t = &f->tensors[f->n++];
        t->name = key;
        TRY(tensor_read(f, t, value, p));
    }
    qsort(f->tensors, (size_t)f->n, sizeof *f->tensors, by_place);
    uint64_t at = 0;
    for (int64_t i = 0; i < f->n; at = f->tensors[i++].end)
        if (f->tensors[i].begin != at)
            return tensor_bad(f, f->tensors[i].name, "overlaps another, or leaves a hole before it",
                              p);
    if (at != f->size - f->data)
        return file_bad(f, "bytes after the last tensor", p);
    qsort(f->tensors, (size_t)f->n, sizeof *f->tensors, by_name);
    return MDL_OK;
}

static int header_read(TensorFile *f, size_t *length, Problem *p)
{
    struct stat st;
    if (fstat(f->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return problem_set(p, EXIT_USE, "%s: not a regular file", f->path);
    f->size = (uint64_t)st.st_size;
    if (f->size < 8)
        return file_bad(f, "too short", p);
    unsigned char b[8];
    TRY(bytes_read(f, 0, b, 8, p));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | b[i];
    if (n > HEADER_MOST)
        return file_bad(f, "the header is longer than 100 MB", p);
    if (n > f->size - 8)
        return file_bad(f, "cut off in its header", p);
    f->header = malloc((size_t)n + 1);
    if (!f->header)
        return problem_no_memory(p, f->path);
    TRY(bytes_read(f, 8, f->header, (size_t)n, p));
    f->header[n] = '\0';
    f->data = 8 + n;
    *length = (size_t)n;
    json_error_t error;
    f->root = json_loadb(f->header, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (!f->root || !json_is_object(f->root)) {
        char shown[200];
        return file_bad(f, text_printable(shown, sizeof shown, error.text, strlen(error.text)), p);
    }
    return MDL_OK;
}

/* The checksum is XXH64 of the header, with zeros in the checksum's place, and the data. */
static int checksum_compare(TensorFile *f, size_t length, Problem *p)
{
    static const char key[] = "\"xxh64\":\"";
    const char *sum = tensors_metadata(f, "xxh64");
    char *at = strstr(f->header, key);
    /* The first such text need not be the note: it counts only where the note's digits follow. */
    if (!sum || strlen(sum) != CHECKSUM_DIGITS || !at ||
        strncmp(at + sizeof key - 1, sum, CHECKSUM_DIGITS) != 0)
        return file_bad(f, "it carries no checksum", p);
    memset(at + sizeof key - 1, '0', CHECKSUM_DIGITS);
    XXH64_state_t *state = XXH64_createState();
    char *piece = malloc(PIECE);
    int status = state && piece ? MDL_OK : problem_no_memory(p, f->path);
    if (status == MDL_OK) {
        XXH64_reset(state, 0);
        XXH64_update(state, f->header, length);
    }
    for (uint64_t from = f->data; from < f->size && status == MDL_OK;) {
        size_t n = f->size - from < PIECE ? (size_t)(f->size - from) : PIECE;
        status = bytes_read(f, from, piece, n, p);
        if (status == MDL_OK)
            XXH64_update(state, piece, n);
        from += n;
    }
    if (status == MDL_OK) {
        char found[CHECKSUM_DIGITS + 1];
        snprintf(found, sizeof found, "%016llx", (unsigned long long)XXH64_digest(state));
        if (strcmp(found, sum) != 0)
            status =
                problem_set(p, EXIT_RUN, "%s: is damaged: its checksum does not agree", f->path);
    }
    XXH64_freeState(state);
    free(piece);
    return status;
}

int tensors_open(TensorFile **out, const char *path, bool checked, Problem *p)
{
    *out = NULL;
    TensorFile *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path))) {
        free(f);
        return problem_no_memory(p, path);
    }
    size_t length = 0;
    f->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe must not keep us here */
    int status = f->fd < 0 ? problem_set(p, EXIT_USE, "%s: %s", path, strerror(errno)) : MDL_OK;
    if (status == MDL_OK)
        status = header_read(f, &length, p);
    if (status == MDL_OK)
        status = tensors_collect(f, p);
    if (status == MDL_OK && checked)
        status = checksum_compare(f, length, p);
    if (status == MDL_OK)
        *out = f;
    else
        tensors_close(f);
    return status;
}

void tensors_close(TensorFile *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    json_decref(f->root);
    free(f->tensors);
    free(f->header);
    free(f->path);
    free(f);
}

int64_t tensors_count(const TensorFile *f)
{
    return f->n;
}

const Tensor *tensors_find(const TensorFile *f, const char *name)
{
    Tensor key = {.name = name};
    return bsearch(&key, f->tensors, (size_t)f->n, sizeof key, by_name);
}

const char *tensors_metadata(const TensorFile *f, const char *key)
{
    return json_string_value(json_object_get(f->metadata, key));
}

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    float f;
    if (exponent == 0) { /* zero and subnormal: fraction x 2^-24 */
        f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void elements_convert(TensorType type, const unsigned char *from, int64_t n, real *out)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        uint32_t bits;
        float f;
        double d;
        switch (type) {
        case TENSOR_F16:
            memcpy(&half, from + 2 * i, sizeof half);
            out[i] = half_to_float(half);
            break;
        case TENSOR_BF16:
            memcpy(&half, from + 2 * i, sizeof half);
            bits = (uint32_t)half << 16;
            memcpy(&f, &bits, sizeof f);
            out[i] = f;
            break;
        case TENSOR_F32:
            memcpy(&f, from + 4 * i, sizeof f);
            out[i] = f;
            break;
        default:
            memcpy(&d, from + 8 * i, sizeof d);
            out[i] = (real)d;
        }
    }
}

int tensors_read(const TensorFile *f, const Tensor *t, real *out, Problem *p)
{
    if (t->type == TENSOR_OTHER)
        return tensor_bad(f, t->name, "is not of a floating type", p);
    int64_t size = t->count > 0 ? (int64_t)(t->end - t->begin) / t->count : 1;
    if (t->type == (sizeof(real) == 8 ? TENSOR_F64 : TENSOR_F32))
        return bytes_read(f, f->data + t->begin, out, (size_t)(t->end - t->begin), p);
    unsigned char *piece = malloc(PIECE);
    int status = piece ? MDL_OK : problem_no_memory(p, t->name);
    int64_t most = PIECE / size;
    for (int64_t i = 0; i < t->count && status == MDL_OK; i += most) {
        int64_t n = t->count - i < most ? t->count - i : most;
        status =
            bytes_read(f, f->data + t->begin + (uint64_t)(i * size), piece, (size_t)(n * size), p);
        if (status == MDL_OK)
            elements_convert(t->type, piece, n, out + i);
    }
    free(piece);
    return status;
}
