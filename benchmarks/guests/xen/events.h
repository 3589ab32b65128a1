/* Event channels of a kernel that looks at them itself: upcalls stay masked but while it blocks. */
#ifndef XEN_EVENTS_H
#define XEN_EVENTS_H

#include "interface.h"

/* Alone in its page. */
extern union shared_page { struct shared_info info; uint8_t page[4096]; } shared_page;

/* The page that the VMM and this domain share takes the place of `shared_page`. */
void events_start(const struct start_info *start);

/* A local port, or a negative error. */
int32_t event_bind(uint16_t remote_domain, uint32_t remote_port);
int32_t event_allocate(uint16_t remote_domain);
int32_t event_bind_line(uint32_t line);
void event_close(uint32_t port);

void event_send(uint32_t port);

/* Whether an event came since the last call. */
int event_taken(uint32_t port);

/* Stop until an event comes; at once if one is pending. */
void events_wait(void);

#endif
