/* base.c - the arena, growing arrays, growing text, and numbers as people read them.
 *
 * The arena is a list of zeroed chunks, filled from the front. A request larger than a quarter of
 * a chunk gets a chunk of its own, put behind the current one so that the current one
 * keeps being filled. Chunks grow with the arena; large ones are mapped, in huge pages where there
 * are such, since plans for thousands of devices are gigabytes. */
#include "base.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CHUNK_SIZE = 256 << 10, LARGEST_CHUNK = 16 << 20, MAPPED = 4 << 20, ALIGNMENT = 16 };

typedef struct Chunk Chunk;
struct Chunk {
    _Alignas(ALIGNMENT) Chunk *next;
    size_t used, size; /* bytes of data[] */
    size_t mapped;     /* bytes of the mapping; 0: from the heap */
    _Alignas(ALIGNMENT) unsigned char data[];
};

struct Arena {
    Chunk *first;
    size_t step; /* bytes of the next chunk */
};

static _Noreturn void die_of_memory(void)
{
    fputs("mdlc: error: out of memory\n", stderr);
    exit(2);
}

static Chunk *chunk_new(size_t size)
{
    if (size > SIZE_MAX - sizeof(Chunk))
        die_of_memory();
    Chunk *c;
    size_t mapped = 0;
    if (size < MAPPED) {
        c = calloc(1, sizeof(Chunk) + size);
    } else {
        mapped = sizeof(Chunk) + size;
        c = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        c = c == MAP_FAILED ? NULL : c;
        if (c)
            (void)madvise(c, mapped, MADV_HUGEPAGE); /* faster where it works */
    }
    if (!c)
        die_of_memory();
    c->size = size;
    c->mapped = mapped;
    return c;
}

Arena *arena_new(void)
{
    Arena *a = calloc(1, sizeof *a);
    if (!a)
        die_of_memory();
    a->first = chunk_new(CHUNK_SIZE);
    a->step = CHUNK_SIZE;
    return a;
}

void arena_free(Arena *a)
{
    if (!a)
        return;
    for (Chunk *c = a->first, *next; c; c = next) {
        next = c->next;
        if (c->mapped)
            (void)munmap(c, c->mapped);
        else
            free(c);
    }
    free(a);
}

void *arena_alloc(Arena *a, size_t size)
{
    if (size > PTRDIFF_MAX)
        die_of_memory();
    /* A request for nothing still gets an address of its own. */
    size = size ? (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    Chunk *c = a->first;
    if (size > a->step / 4) {
        Chunk *own = chunk_new(size);
        own->used = size;
        own->next = c->next;
        c->next = own;
        return own->data;
    }
    if (c->size - c->used < size) {
        c = chunk_new(a->step);
        c->next = a->first;
        a->first = c;
        a->step = a->step < LARGEST_CHUNK ? 2 * a->step : a->step;
    }
    void *p = c->data + c->used;
    c->used += size;
    return p;
}

void *arena_copy(Arena *a, const void *from, size_t size)
{
    void *p = arena_alloc(a, size);
    if (size)
        memcpy(p, from, size);
    return p;
}

char *arena_strndup(Arena *a, const char *s, size_t n)
{
    if (n == SIZE_MAX)
        die_of_memory();
    char *p = arena_alloc(a, n + 1);
    if (n)
        memcpy(p, s, n);
    return p;
}

static char *print_in_arena(Arena *a, const char *format, va_list args, size_t *length)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (n < 0)
        die_of_memory();
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, format, args);
    *length = (size_t)n;
    return p;
}

char *arena_printf(Arena *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t length;
    char *p = print_in_arena(a, format, args, &length);
    va_end(args);
    return p;
}

void *vec_reserve(Arena *a, void *at, int n, int *cap, int want, size_t size)
{
    if (want <= *cap)
        return at;
    if ((size_t)want > PTRDIFF_MAX / size)
        die_of_memory();
    void *p = arena_alloc(a, (size_t)want * size);
    if (n)
        memcpy(p, at, (size_t)n * size);
    *cap = want;
    return p;
}

void *vec_grow(Arena *a, void *at, int n, int *cap, size_t size)
{
    if (*cap > INT32_MAX / 2)
        die_of_memory();
    return vec_reserve(a, at, n, cap, *cap ? *cap * 2 : 4, size);
}

void text_add_n(Text *t, const char *s, size_t n)
{
    if (n > PTRDIFF_MAX - t->n - 1)
        die_of_memory();
    if (t->n + n + 1 > t->cap) {
        size_t cap = t->cap ? t->cap : 64;
        while (cap < t->n + n + 1)
            cap *= 2;
        char *at = arena_alloc(t->arena, cap);
        if (t->n)
            memcpy(at, t->at, t->n);
        t->at = at;
        t->cap = cap;
    }
    if (n)
        memcpy(t->at + t->n, s, n);
    t->n += n;
    t->at[t->n] = '\0';
}

void text_add(Text *t, const char *s)
{
    text_add_n(t, s, strlen(s));
}

void text_printf(Text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t length;
    const char *s = print_in_arena(t->arena, format, args, &length);
    va_end(args);
    text_add_n(t, s, length);
}

bool mul_i64(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool add_i64(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

const char *show_count(Arena *a, int64_t n)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRIu64, n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
    size_t length = strlen(digits);
    Text t = {.arena = a};
    if (n < 0)
        text_add(&t, "-");
    for (size_t i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            text_add(&t, ",");
        text_add_n(&t, digits + i, 1);
    }
    return t.at;
}

/* One decimal, the largest prefix that keeps the number at 1 or more. */
static const char *show_scaled(Arena *a, double n, double step, const char *const *prefixes,
                               int nprefixes, const char *unit)
{
    int p = 0;
    /* Compared after rounding, so that 1023.96 KiB is shown as 1.0 MiB. */
    while (p + 1 < nprefixes && fabs(n) >= step - (p ? 0.05 : 0.0)) {
        n /= step;
        p++;
    }
    if (!p && n == floor(n))
        return arena_printf(a, "%.0f %s", n, unit);
    return arena_printf(a, "%.1f %s%s", n, prefixes[p], unit);
}

const char *show_bytes(Arena *a, int64_t n)
{
    static const char *const prefixes[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    return show_scaled(a, (double)n, 1024, prefixes, 7, "B");
}

const char *show_quantity(Arena *a, double n, const char *unit)
{
    static const char *const prefixes[] = {"", "K", "M", "G", "T", "P", "E"};
    return show_scaled(a, n, 1000, prefixes, 7, unit);
}

int32_t utf8_decode(const char *s, size_t size, int *length)
{
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *u = (const unsigned char *)s;
    *length = 1;
    if (u[0] < 0x80)
        return u[0];
    int n = 2 + (u[0] >= 0xe0) + (u[0] >= 0xf0);
    if (u[0] < 0xc2 || u[0] > 0xf4 || (size_t)n > size)
        return -1;
    int32_t c = u[0] & (0xff >> (n + 1));
    for (int i = 1; i < n; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return -1;
        c = c << 6 | (u[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return -1;
    *length = n;
    return c;
}

bool char_is_unsafe(int32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) ||         /* C0, C1 */
           c == 0xad || c == 0x61c || c == 0x180e ||      /* soft hyphen, Arabic mark */
           c == 0x200b || c == 0x200e || c == 0x200f ||   /* zero width, direction marks */
           (c >= 0x2028 && c <= 0x202e) ||                /* line ends, embeddings */
           (c >= 0x2060 && c <= 0x206f) ||                /* joiners, isolates */
           c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || /* byte order mark, annotations */
           (c & 0xfffe) == 0xfffe || (c >= 0xe0000 && c <= 0xe0fff); /* none, tags */
}
