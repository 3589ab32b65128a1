/* How the block back end and the guest's front end find each other in the store (io/xenbus.h). */
#ifndef BLOCK_BUS_H
#define BLOCK_BUS_H

#include <stdint.h>

/* Offer the guest a disk of so many sectors. */
void block_bus_start(uint32_t sectors);

/* Follow the front end's state. */
void block_bus_look(void);

/* The front end has broken the rules: the device is closed. */
void block_bus_fail(const char *why);

/* The back end itself: map the ring and bind the channel (0: it could not), let go of both. */
int block_back_connect(uint32_t reference, uint32_t remote_port);
void block_back_disconnect(void);

#endif
