/* data.c - made-up samples, the same on every machine.
 *
 * usage: reference_data FILE.npy f4|i4 LIMIT[+FIRST] DIM …
 *
 * Out: an array of the dimensions DIM, the first of which counts samples; f4: numbers in
 * [-LIMIT, LIMIT), i4: whole numbers in [0, LIMIT). Element e is a hash of FIRST + e and the
 * type: with +1 each element is the next one of the file without.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DIMS = 8, HEADER = 128 };

/* The finaliser of SplitMix64 by Sebastiano Vigna, upper half. */
static uint32_t hash(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((x ^ x >> 31) >> 32);
}

/* Magic, version 1.0, length, a dictionary padded with blanks to a line of HEADER bytes. */
static bool header_write(FILE *f, const char *type, const char *shape)
{
    char text[HEADER + 1];
    int n = snprintf(text, sizeof text, "{'descr': '<%s', 'fortran_order': False, 'shape': (%s), }",
                     type, shape);
    if (n < 0 || n > HEADER - 11)
        return false;
    unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, HEADER - 10, 0};
    return fwrite(start, 1, 10, f) == 10 && fprintf(f, "%-*s\n", HEADER - 11, text) == HEADER - 10;
}

/* A number up to the character `until`. */
static bool number_read(const char *text, char until, int64_t *n)
{
    char *end;
    *n = strtoll(text, &end, 10);
    return end != text && *end == until && *n >= 1 && *n <= 1 << 24;
}

static bool limit_read(const char *text, int64_t *limit, int64_t *first)
{
    const char *plus = strchr(text, '+');
    *first = 0;
    return plus ? number_read(text, '+', limit) && number_read(plus + 1, '\0', first)
                : number_read(text, '\0', limit);
}

static bool elements_write(FILE *f, bool real, int64_t limit, int64_t first, int64_t count)
{
    for (int64_t e = first; e < first + count; e++) {
        uint32_t bits = hash(2 * (uint64_t)e + (real ? 1 : 2));
        float x = (float)(((double)bits * 0x1p-31 - 1) * (double)limit);
        int32_t n = (int32_t)((uint64_t)bits * (uint64_t)limit >> 32);
        if (fwrite(real ? (void *)&x : (void *)&n, 4, 1, f) != 1)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    int64_t limit, first, n, count = 1;
    char shape[HEADER] = "";
    bool real = argc > 2 && strcmp(argv[2], "f4") == 0;
    if (argc < 5 || argc > 4 + MOST_DIMS || (!real && strcmp(argv[2], "i4") != 0) ||
        !limit_read(argv[3], &limit, &first)) {
        fprintf(stderr, "usage: reference_data FILE.npy f4|i4 LIMIT[+FIRST] DIM ...\n");
        return 2;
    }
    for (int i = 4; i < argc; i++) {
        if (!number_read(argv[i], '\0', &n) || __builtin_mul_overflow(count, n, &count) ||
            count > 1 << 28) {
            fprintf(stderr, "reference_data: bad dimension %s\n", argv[i]);
            return 2;
        }
        size_t used = strlen(shape);
        snprintf(shape + used, sizeof shape - used, "%" PRId64 ",", n);
    }
    FILE *f = fopen(argv[1], "wb");
    bool done =
        f && header_write(f, argv[2], shape) && elements_write(f, real, limit, first, count);
    if (f && fclose(f) != 0)
        done = false;
    if (!done)
        perror(argv[1]);
    return done ? 0 : 1;
}
