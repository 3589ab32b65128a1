/* The first program: run the others one after the other, and tell the machine the verdict. Each must end with code 0 and
   give back every page that it took. */
#include "program.h"

struct step {
    const char *program, *argument;
    int32_t needs;              /* options that must be on */
};

static const struct step steps[] = {
    {"processes", "interrupt", 0},
    {"processes", "page", 0},
    {"memory", "", 0},
    {"pipes", "", 0},
    {"signals", "", 0},
    {"files", "", 0},
    {"clock", "", OPTION_TIMER},
    {"marks", "iterations", 0},
};

/* Run a program to its end; its status. */
static uint32_t run(const struct step *step, const char *iterations)
{
    const char *arguments[] = {step->program, step->argument, iterations, 0};
    const int32_t child = fork();

    if (child == 0) {
        exec(step->program, arguments);
        check(0, "the program is in the archive");
    }
    check(child > 0, "fork() makes a process");
    return wait_for(child);
}

/* Whether a step is wanted: all are, or the one that is named, if the machine has what it needs. */
static int is_wanted(const struct step *step, const char *only)
{
    return (options() & step->needs) == step->needs && (same_text(only, "") || same_text(only, step->program));
}

int main(int count, char **arguments)
{
    int32_t before;
    int done = 0;

    if (count != 3)
        shut_down(100);
    run(&(const struct step){"processes", "nothing", 0}, arguments[1]); /* pages of our own that are shared are copied now */
    before = free_pages();
    for (unsigned number = 0; number < sizeof steps / sizeof steps[0]; number++) {
        const struct step *step = &steps[number];

        if (!is_wanted(step, arguments[2]))
            continue;
        done++;
        if (run(step, arguments[1]) != 0)
            shut_down((int)number + 1);
        if (free_pages() != before)
            shut_down((int)number + 51);
    }
    shut_down(done ? 0 : 99);   /* 99: there is no such program */
    return 0;
}
