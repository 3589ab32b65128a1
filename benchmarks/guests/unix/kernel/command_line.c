/* The words that the loader passes on. */
#include "command_line.h"

#include <stdint.h>

#include "console.h"

#define ITERATIONS "iterations="
#define NO_TIMER "timer=off"
#define PROGRAM "program="

/* Where a word goes on behind its beginning, or null if it begins otherwise. */
static const char *after(const char *word, const char *beginning)
{
    while (*beginning)
        if (*word++ != *beginning++)
            return 0;
    return word;
}

static int ends(char character)
{
    return character == 0 || character == ' ';
}

/* Copy a decimal from 1 to 4294967295. */
static void read_iterations(const char *digits, char *to)
{
    uint32_t value = 0, next;

    for (; !ends(*digits); digits++) {
        next = value * 10 + (uint32_t)(*digits - '0');
        if (*digits < '0' || *digits > '9' || value > UINT32_MAX / 10 || next < value * 10)
            break;
        value = next;
    }
    if (!ends(*digits) || !value)
        panic("iterations= needs a decimal from 1 to 4294967295", EXIT_BAD_COMMAND_LINE);
    for (uint32_t rest = value; rest; rest /= 10)
        to++;
    for (*to = 0; value; value /= 10)
        *--to = (char)('0' + value % 10);
}

static void read_name(const char *name, char *to)
{
    for (unsigned length = 0; !ends(*name); length++) {
        if (length == FILE_NAME_BYTES - 1)
            panic("program= needs a shorter name", EXIT_BAD_COMMAND_LINE);
        *to++ = *name++;
    }
    *to = 0;
}

struct options command_line(const char *text)
{
    struct options options = {DEFAULT_ITERATIONS, "", 1};

    while (text && *text) {
        const char *rest = after(text, ITERATIONS);

        if (rest)
            read_iterations(rest, options.iterations);
        rest = after(text, NO_TIMER);
        if (rest && ends(*rest))
            options.timer = 0;
        rest = after(text, PROGRAM);
        if (rest)
            read_name(rest, options.program);
        while (!ends(*text))
            text++;
        while (*text == ' ')
            text++;
    }
    return options;
}
