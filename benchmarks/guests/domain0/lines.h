/* Interrupt lines of the machine, which come as events. */
#ifndef LINES_H
#define LINES_H

#include <stdint.h>

struct line {
    int32_t port;               /* negative: the VMM does not give us the line */
    uint32_t number;
    int needs_end;              /* the VMM wants to hear when an interrupt has been dealt with */
};

struct line line_open(uint32_t number);
int line_taken(const struct line *line);
void line_end(const struct line *line);

#endif
