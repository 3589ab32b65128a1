/* Interrupt lines. */
#include "lines.h"

#include "../xen/events.h"
#include "../xen/hypercall.h"

struct line line_open(uint32_t number)
{
    struct physdev_irq_status_query query = {number, 0};
    struct line line = {event_bind_line(number), number, 0};

    if (physdev_op(PHYSDEVOP_irq_status_query, &query) == 0)
        line.needs_end = (query.flags & XENIRQSTAT_needs_eoi) != 0;
    return line;
}

int line_taken(const struct line *line)
{
    return line->port >= 0 && event_taken((uint32_t)line->port);
}

void line_end(const struct line *line)
{
    uint32_t number = line->number;

    if (line->needs_end)
        physdev_op(PHYSDEVOP_eoi, &number);
}
