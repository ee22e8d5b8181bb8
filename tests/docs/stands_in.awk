# stands_in.awk - does the first file stand in the second, line by line?
#
# Lines of the first that match `dots` stand for any number of lines; the pieces between them
# must occur in their order, each in one go. whole = 1: the second begins with the first
# piece and ends with the last.

BEGIN { n = lines = 0 }
FNR == NR {
    if ($0 ~ dots)
        open_end[n++] = 1
    else
        piece[n, size[n]++] = $0
    next
}
{ text[lines++] = $0 }

function stands_at(p, at,    i)
{
    for (i = 0; i < size[p]; i++)
        if (at + i >= lines || text[at + i] != piece[p, i])
            return 0
    return 1
}

END {
    at = 0
    for (p = 0; p <= n; p++) {
        if (size[p] + 0 == 0)
            continue
        if (whole && p == n && p > 0) {
            if (lines - size[p] < at || !stands_at(p, lines - size[p])) {
                print "the end differs: " piece[p, 0]
                exit 1
            }
            at = lines
            continue
        }
        last = whole && p == 0 ? 0 : lines
        while (at <= last && !stands_at(p, at))
            at++
        if (at > last) {
            print "does not stand there: " piece[p, 0]
            exit 1
        }
        at += size[p]
    }
    if (whole && n == 0 && at != lines) {
        print "there is more: " text[at]
        exit 1
    }
}
