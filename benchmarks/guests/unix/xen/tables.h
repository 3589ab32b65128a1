/* Page tables, of which the hypervisor lets this domain write none that a processor may walk. */
#ifndef TABLES_H
#define TABLES_H

#include <stdint.h>

#include "hypervisor.h"

/* The page that the hypervisor and this domain share takes the place of this one. */
extern union shared_page {
    struct shared_info info;
    uint8_t page[4096];
} shared_page;

void tables_start(void);

/* Take the tables of a space back, so that they are memory like any other. */
void tables_retire(uint32_t root);

#endif
