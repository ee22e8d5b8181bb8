/* data_idx.c - the idx files of MNIST and its kin, plain or compressed by gzip.
 *
 * In: two zero bytes, a type, a rank, that many big-endian 32-bit dimensions, then the
 * elements, big-endian. Out: an Array over the mapped file or over memory. What a
 * compressed file claims to hold is never believed: memory grows with what arrives.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "data.h"

enum { HEADER_MAX = 4 + 4 * ARRAY_RANK };

static int idx_type(Array *a, int code, Problem *p)
{
    switch (code) {
    case 0x08:
        a->type = ELEMENT_U8;
        return MDL_OK;
    case 0x09:
        a->type = ELEMENT_I8;
        return MDL_OK;
    case 0x0B:
        a->type = ELEMENT_I16;
        return MDL_OK;
    case 0x0C:
        a->type = ELEMENT_I32;
        return MDL_OK;
    case 0x0D:
        a->type = ELEMENT_F32;
        return MDL_OK;
    case 0x0E:
        a->type = ELEMENT_F64;
        return MDL_OK;
    default:
        return problem_set(p, EXIT_RUN, "%s: unknown element type 0x%02x in an idx file", a->path,
                           (unsigned)code);
    }
}

/* Type, rank and dimensions from b[size], and how many bytes of elements follow. */
static int idx_header(Array *a, const unsigned char *b, size_t size, size_t *start, size_t *bytes,
                      Problem *p)
{
    if (size < 4 || b[0] != 0 || b[1] != 0)
        return problem_set(p, EXIT_RUN, "%s: not an idx file", a->path);
    TRY(idx_type(a, b[2], p));
    a->big_endian = true;
    a->rank = b[3];
    if (a->rank > ARRAY_RANK)
        return problem_set(p, EXIT_RUN, "%s: %d dimensions are too many", a->path, a->rank);
    *start = 4 + 4 * (size_t)a->rank;
    if (size < *start)
        return problem_set(p, EXIT_RUN, "%s: cut off in its header", a->path);
    for (int i = 0; i < a->rank; i++) {
        const unsigned char *d = b + 4 + 4 * i;
        a->dim[i] = (int64_t)d[0] << 24 | (int64_t)d[1] << 16 | (int64_t)d[2] << 8 | d[3];
    }
    int64_t count, n;
    if (!size_product(&count, a->dim, a->rank) ||
        __builtin_mul_overflow(count, element_size(a->type), &n))
        return problem_set(p, EXIT_RUN, "%s: its dimensions are too large", a->path);
    *bytes = (size_t)n;
    return MDL_OK;
}

static int wrong_length(const Array *a, size_t wanted, const char *found, Problem *p)
{
    return problem_set(p, EXIT_RUN, "%s: its dimensions need %zu bytes of elements, %s", a->path,
                       wanted, found);
}

static int read_plain(Array *a, Problem *p)
{
    size_t start, bytes;
    TRY(idx_header(a, a->file.bytes, a->file.size, &start, &bytes, p));
    size_t rest = a->file.size - start;
    if (rest != bytes)
        return wrong_length(a, bytes, rest < bytes ? "the file is cut off" : "there are more", p);
    a->elements = a->file.bytes + start;
    return MDL_OK;
}

/* zlib says in one number what went wrong with the stream, or that nothing has. */
static int gzip_status(const Array *a, gzFile gz, Problem *p)
{
    int code;
    const char *why = gzerror(gz, &code);
    if (code == Z_OK || code == Z_STREAM_END)
        return MDL_OK;
    return problem_set(p, EXIT_RUN, "%s: cannot be uncompressed: %s", a->path, why);
}

/* More than the machine's memory would end the process, not with a message. */
static int memory_suffices(const Array *a, size_t bytes, Problem *p)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || page <= 0 || bytes / (size_t)page < (size_t)pages)
        return MDL_OK;
    return problem_set(p, EXIT_RUN,
                       "%s: its dimensions need %zu bytes, more than this machine's memory; "
                       "uncompress it with gunzip, so that it can be mapped",
                       a->path, bytes);
}

static int read_elements(Array *a, gzFile gz, size_t bytes, Problem *p)
{
    TRY(memory_suffices(a, bytes, p));
    size_t have = 0, room = 0;
    unsigned char *memory = NULL;
    while (have < bytes) {
        if (have == room) {
            room = room < 1 << 20 ? 1 << 20 : room * 2;
            if (room > bytes)
                room = bytes;
            unsigned char *more = realloc(memory, room);
            if (!more) {
                free(memory);
                return problem_no_memory(p, a->path);
            }
            memory = more;
        }
        size_t want = room - have < 1 << 24 ? room - have : 1 << 24;
        int n = gzread(gz, memory + have, (unsigned)want);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    a->memory = memory;
    a->elements = memory;
    /* Reading past the end is what makes zlib check the length and the checksum. */
    unsigned char extra;
    int more = have == bytes ? gzread(gz, &extra, 1) : 0;
    TRY(gzip_status(a, gz, p));
    if (have < bytes || more != 0)
        return wrong_length(a, bytes, more ? "there are more" : "the file is cut off", p);
    return MDL_OK;
}

static int read_gzip(Array *a, Problem *p)
{
    gzFile gz = gzopen(a->path, "rb");
    if (!gz)
        return problem_set(p, EXIT_USE, "%s: cannot be opened", a->path);
    unsigned char header[HEADER_MAX];
    size_t start, bytes, have = 0;
    int n = gzread(gz, header, 4);
    have = n > 0 ? (size_t)n : 0;
    if (have == 4 && header[3] <= ARRAY_RANK) {
        n = gzread(gz, header + 4, 4u * header[3]);
        have += n > 0 ? (size_t)n : 0;
    }
    int status = gzip_status(a, gz, p);
    if (status == MDL_OK)
        status = idx_header(a, header, have, &start, &bytes, p);
    if (status == MDL_OK)
        status = read_elements(a, gz, bytes, p);
    gzclose(gz);
    return status;
}

int idx_read(Array *a, const char *path, Problem *p)
{
    *a = (Array){.path = path};
    TRY(file_map(&a->file, path, p));
    bool gzip = a->file.size >= 2 && a->file.bytes[0] == 0x1f && a->file.bytes[1] == 0x8b;
    if (gzip)
        file_release(&a->file);
    int status = gzip ? read_gzip(a, p) : read_plain(a, p);
    if (status != MDL_OK)
        array_release(a);
    return status;
}
