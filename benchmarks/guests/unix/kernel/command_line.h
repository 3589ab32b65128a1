/* The words that the loader passes on: `iterations=N`; `timer=off`: no interrupts at all; `program=NAME`: the first program
   runs only that one. */
#ifndef COMMAND_LINE_H
#define COMMAND_LINE_H

#include "../include/sizes.h"

struct options {
    char iterations[12];        /* decimal, for the first program's argument */
    char program[FILE_NAME_BYTES]; /* empty: all of them */
    int timer;
};

struct options command_line(const char *text); /* text may be null */

#endif
