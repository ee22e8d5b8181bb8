/* exec_print.c - printf of kernels.
 *
 * In: the addresses of a format and of its packed arguments, each aligned to its size, as
 * CUDA's vprintf gets them. Out: the text, on standard output at once; how many arguments it
 * took, -1: no format. Both are read like any memory of the kernel, with all checks.
 */
#include <stdlib.h>
#include <string.h>

#include "exec.h"

enum { FORMAT_MAX = 4096, SPEC_MAX = 48 };

/* A string of the device; false: it is longer than `size`, or refused. */
static bool string_read(SimThread *t, uint64_t at, char *out, size_t size, uint32_t site)
{
    for (size_t i = 0; i < size; i++) {
        const char *byte = exec_access(t, SIM_SPACE_GENERIC, at + i, 1, 1, site);
        out[i] = *byte;
        if (!out[i])
            return true;
    }
    out[size - 1] = '\0';
    return false;
}

typedef struct {
    SimThread *t;
    uint64_t at;
    uint32_t site;
    int n;
} Arguments;

static uint64_t argument(Arguments *a, uint32_t bytes)
{
    uint64_t value = 0;
    a->at = (a->at + bytes - 1) / bytes * bytes;
    memcpy(&value, exec_access(a->t, SIM_SPACE_GENERIC, a->at, bytes, 1, a->site), bytes);
    a->at += bytes;
    a->n++;
    return value;
}

static void print_integer(Arguments *a, char *spec, size_t length, char letter, int longs)
{
    /* The argument has the size that CUDA gave it; it is printed as the largest type. */
    uint64_t bits = argument(a, longs ? 8 : 4);
    spec[length] = 'l';
    spec[length + 1] = 'l';
    spec[length + 2] = letter;
    spec[length + 3] = '\0';
    if (letter == 'd' || letter == 'i')
        printf(spec, (long long)(longs ? (int64_t)bits : (int32_t)bits));
    else
        printf(spec, (unsigned long long)bits);
}

static void print_value(Arguments *a, char *spec, size_t length, char letter, int longs)
{
    char text[1024];
    double real;
    uint64_t bits;
    if (strchr("diuxXo", letter)) {
        print_integer(a, spec, length, letter, longs);
        return;
    }
    spec[length] = letter;
    spec[length + 1] = '\0';
    switch (letter) {
    case 'c':
        printf(spec, (int)argument(a, 4));
        break;
    case 's':
        string_read(a->t, argument(a, 8), text, sizeof text, a->site);
        printf(spec, text);
        break;
    case 'p':
        printf(spec, (void *)(uintptr_t)argument(a, 8));
        break;
    default:
        bits = argument(a, 8);
        memcpy(&real, &bits, sizeof real);
        printf(spec, real);
        break;
    }
}

/* One conversion, from after its %; returns where the text goes on. */
static const char *print_conversion(Arguments *a, const char *p)
{
    char spec[SPEC_MAX] = "%";
    size_t n = 1;
    int longs = 0;
    for (; *p && strchr("-+ #0123456789.*", *p) && n < SPEC_MAX - 16; p++) {
        if (*p == '*')
            n += (size_t)snprintf(spec + n, 12, "%d", (int)argument(a, 4));
        else
            spec[n++] = *p;
    }
    for (; *p && strchr("hljztL", *p); p++)
        longs += *p != 'h' && *p != 'L';
    if (*p == '%' || !*p) {
        putchar('%');
        return *p ? p + 1 : p;
    }
    if (strchr("diuxXocspfFeEgGaA", *p))
        print_value(a, spec, n, *p, longs);
    else
        printf("%s%c", spec, *p);
    return p + 1;
}

int exec_print(SimThread *t, uint64_t format, uint64_t args, uint32_t site)
{
    char text[FORMAT_MAX];
    Arguments a = {t, args, site, 0};
    if (!format || !string_read(t, format, text, sizeof text, site))
        return -1;
    for (const char *p = text; *p;) {
        if (*p == '%') {
            p = print_conversion(&a, p + 1);
        } else {
            putchar(*p);
            p++;
        }
    }
    return a.n;
}
