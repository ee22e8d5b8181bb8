/* tensors_write.c - safetensors files, written in one pass and complete or not at all.
 *
 * In: tensors in the order they are to have, and notes. Out: PATH, which appears by a
 * rename once every byte is on the disk. The checksum is of all bytes written, taken
 * while they are; it is put into the header last.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "safetensors.h"

enum { PIECE = 1 << 18 };

typedef struct {
    FileReplace file;
    XXH64_state_t *sum;
    const TensorLender *lender;
    Problem *p;
} Writer;

static int write_failed(Writer *w)
{
    return problem_set(w->p, EXIT_RUN, "%s: cannot be written: %s", w->file.temporary,
                       strerror(errno));
}

static int bytes_write(Writer *w, const void *bytes, size_t size)
{
    XXH64_update(w->sum, bytes, size);
    return file_write_all(w->file.fd, bytes, size) ? MDL_OK : write_failed(w);
}

static json_t *item_describe(const TensorItem *item, int64_t count, bool as_real, int64_t *at)
{
    bool f64 = as_real && sizeof(real) == 8;
    json_t *shape = json_array();
    for (int i = 0; i < item->rank; i++)
        json_array_append_new(shape, json_integer(item->dim[i]));
    int64_t end = *at + count * (f64 ? 8 : 4);
    json_t *described = json_pack("{s:s, s:o, s:[I, I]}", "dtype", f64 ? "F64" : "F32", "shape",
                                  shape, "data_offsets", (json_int_t)*at, (json_int_t)end);
    *at = end;
    return described;
}

/* The header's text, to be freed; NULL when memory runs out. */
static char *header_make(const TensorItem *items, int64_t n, const TensorNote *notes, int nnotes,
                         bool as_real, bool checked)
{
    json_t *root = json_object(), *metadata = json_object();
    bool ok = root && metadata;
    for (int i = 0; i < nnotes; i++)
        ok &= json_object_set_new(metadata, notes[i].key, json_string(notes[i].value)) == 0;
    if (checked)
        ok &= json_object_set_new(metadata, "xxh64", json_string("0000000000000000")) == 0;
    ok &= json_object_set_new(root, "__metadata__", metadata) == 0;
    int64_t at = 0;
    for (int64_t i = 0; i < n && ok; i++) {
        int64_t count;
        ok = size_product(&count, items[i].dim, items[i].rank) &&
             json_object_set_new(root, items[i].name,
                                 item_describe(&items[i], count, as_real, &at)) == 0;
    }
    char *text = ok ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    /* Spaces at the end align the elements to 8 bytes. */
    size_t length = text ? strlen(text) : 0, padded = (length + 7) & ~(size_t)7;
    char *header = text ? malloc(padded + 1) : NULL;
    if (header) {
        memset(header, ' ', padded);
        memcpy(header, text, length);
        header[padded] = '\0';
    }
    free(text);
    return header;
}

static int elements_write(Writer *w, const TensorItem *item, const real *data, bool as_real)
{
    int64_t count = 1;
    size_product(&count, item->dim, item->rank);
    if (as_real || sizeof(real) == 4)
        return bytes_write(w, data, (size_t)count * sizeof(real));
    float *piece = malloc(PIECE * sizeof *piece);
    int status = piece ? MDL_OK : problem_no_memory(w->p, item->name);
    for (int64_t i = 0; i < count && status == MDL_OK; i += PIECE) {
        int64_t n = count - i < PIECE ? count - i : PIECE;
        for (int64_t k = 0; k < n; k++)
            piece[k] = (float)data[i + k];
        status = bytes_write(w, piece, (size_t)n * sizeof *piece);
    }
    free(piece);
    return status;
}

static int item_write(Writer *w, const TensorItem *items, int64_t i, bool as_real)
{
    const real *data = items[i].data;
    if (data)
        return elements_write(w, &items[i], data, as_real);
    int status = w->lender->lend(w->lender->ctx, i, &data, w->p);
    if (status == MDL_OK)
        status = elements_write(w, &items[i], data, as_real);
    w->lender->take_back(w->lender->ctx, i);
    return status;
}

static int checksum_write(Writer *w, const char *header)
{
    char sum[17];
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)XXH64_digest(w->sum));
    const char *at = strstr(header, "\"xxh64\":\"") + sizeof "\"xxh64\":\"" - 1;
    if (lseek(w->file.fd, 8 + (at - header), SEEK_SET) < 0 || !file_write_all(w->file.fd, sum, 16))
        return write_failed(w);
    return MDL_OK;
}

static int contents_write(Writer *w, const char *header, const TensorItem *items, int64_t n,
                          bool as_real, bool checked)
{
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)strlen(header) >> 8 * i);
    if (!file_write_all(w->file.fd, length, sizeof length))
        return write_failed(w);
    XXH64_reset(w->sum, 0);
    TRY(bytes_write(w, header, strlen(header)));
    for (int64_t i = 0; i < n; i++)
        TRY(item_write(w, items, i, as_real));
    return checked ? checksum_write(w, header) : MDL_OK;
}

int tensors_write(const char *path, const TensorItem *items, int64_t n, const TensorLender *lender,
                  const TensorNote *notes, int nnotes, bool as_real, bool checked, Problem *p)
{
    Writer w = {.sum = XXH64_createState(), .lender = lender, .p = p};
    char *header = header_make(items, n, notes, nnotes, as_real, checked);
    int status = w.sum && header ? MDL_OK : problem_no_memory(p, path);
    if (status == MDL_OK)
        status = file_replace_begin(&w.file, path, p);
    if (status == MDL_OK) {
        status = contents_write(&w, header, items, n, as_real, checked);
        int ended = file_replace_end(&w.file, status == MDL_OK, p);
        status = status == MDL_OK ? ended : status;
    }
    XXH64_freeState(w.sum);
    free(header);
    return status;
}
