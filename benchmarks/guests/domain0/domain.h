/* This domain, and the one that it serves. */
#ifndef DOMAIN_H
#define DOMAIN_H

#include "../xen/interface.h"

#define GUEST_NAME_BYTES 32

/* What the VMM's domain builder says of the guest, on our command line. */
struct guest {
    uint16_t domain;
    uint32_t console_port, store_port;  /* the guest's ends of two event channels, not yet bound */
    uint32_t memory;                    /* KB */
    char name[GUEST_NAME_BYTES];
};
extern struct guest guest;

#define ALONE_IN_PAGES __attribute__((section(".bss.tables"), aligned(4096)))

/* The machine address of something of ours that lies within one page. */
uint32_t machine_address(const void *place);

void print(const char *text);
void print_number(uint32_t value);

#endif
