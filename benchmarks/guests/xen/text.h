/* Words, and numbers as texts. */
#ifndef XEN_TEXT_H
#define XEN_TEXT_H

#include <stdint.h>

#include "../unix/kernel/bytes.h"

#define DECIMAL_BYTES 11        /* 4294967295 and the zero behind it */

/* Write a number in decimal; returns where it begins, inside `place`. */
const char *decimal(uint32_t value, char place[DECIMAL_BYTES]);

/* Read a decimal from a text of so many bytes; 0 if it is not one, or does not fit. */
int read_decimal(const char *text, size_t bytes, uint32_t *value);

/* What follows `key` in a text of words parted by blanks, up to the next blank; `otherwise` if there is none. */
uint32_t number_behind(const char *words, const char *key, uint32_t otherwise);
const char *word_behind(const char *words, const char *key, size_t *bytes);

#endif
