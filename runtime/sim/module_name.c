/* module_name.c - a kernel's own name from its mangled one.
 *
 *     _Z4warpPf             warp
 *     _ZN3foo2k2ENS_1QEPi   foo::k2
 *     _Z4tmplILi3EfEvPT0_   tmpl
 *
 * Only what names a function is read: nested names, their template arguments skipped; names
 * of nvcc's own for unnamed namespaces are dropped. What is not understood stays as it is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "module_build.h"

/* "3foo": where the name is, and how long; NULL: there is none. */
static const char *take_name(const char **p, size_t *length)
{
    char *end;
    if (**p < '1' || **p > '9')
        return NULL;
    const unsigned long n = strtoul(*p, &end, 10);
    if (n > strlen(end))
        return NULL;
    *length = n;
    *p = end + n;
    return end;
}

/* "I...E" with what is nested in it; false: it does not end. */
static bool skip_template(const char **p)
{
    if (**p != 'I')
        return true;
    int open = 0;
    do {
        size_t length;
        if (**p == '\0')
            return false;
        if (**p >= '1' && **p <= '9' && (*p)[-1] != 'i' && (*p)[-1] != 'j' && (*p)[-1] != 'l' &&
            (*p)[-1] != 'm' && (*p)[-1] != 'b') {
            if (!take_name(p, &length))
                return false;
            continue;
        }
        open += **p == 'I' || **p == 'L' || **p == 'N' || **p == 'X' || **p == 'J';
        open -= **p == 'E';
        (*p)++;
    } while (open > 0);
    return true;
}

void module_demangle(const char *mangled, char *out, size_t size)
{
    const char *p = mangled;
    size_t used = 0;
    snprintf(out, size, "%s", mangled);
    if (strncmp(p, "_Z", 2) != 0)
        return;
    p += 2;
    const bool nested = *p == 'N';
    p += nested ? 1 : *p == 'L';
    char name[256] = "";
    for (;;) {
        size_t length;
        p += *p == 'L';
        const char *at = take_name(&p, &length);
        if (!at)
            break;
        const bool unnamed = length >= 10 && memcmp(at, "_GLOBAL__N", 10) == 0;
        if (!unnamed && used + length + 3 < sizeof name)
            used += (size_t)snprintf(name + used, sizeof name - used, "%s%.*s", used ? "::" : "",
                                     (int)length, at);
        if (!skip_template(&p) || !nested)
            break;
    }
    if (used > 0)
        snprintf(out, size, "%s", name);
}
