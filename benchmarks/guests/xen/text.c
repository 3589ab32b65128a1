/* Numbers and words. */
#include "text.h"

const char *decimal(uint32_t value, char place[DECIMAL_BYTES])
{
    char *digit = place + DECIMAL_BYTES - 1;

    *digit = 0;
    do {
        *--digit = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return digit;
}

int read_decimal(const char *text, size_t bytes, uint32_t *value)
{
    uint32_t read = 0;

    if (!bytes)
        return 0;
    for (size_t number = 0; number < bytes; number++) {
        const uint32_t digit = (uint32_t)(text[number] - '0');

        if (digit > 9 || read > (0xFFFFFFFFu - digit) / 10)
            return 0;
        read = read * 10 + digit;
    }
    *value = read;
    return 1;
}

static int begins(const char *text, const char *key)
{
    while (*key)
        if (*text++ != *key++)
            return 0;
    return 1;
}

const char *word_behind(const char *words, const char *key, size_t *bytes)
{
    while (*words) {
        if (begins(words, key)) {
            const char *word = words + text_bytes(key);

            for (*bytes = 0; word[*bytes] && word[*bytes] != ' '; ++*bytes)
                ;
            return word;
        }
        while (*words && *words != ' ')
            words++;
        while (*words == ' ')
            words++;
    }
    *bytes = 0;
    return words;
}

uint32_t number_behind(const char *words, const char *key, uint32_t otherwise)
{
    size_t bytes;
    const char *word = word_behind(words, key, &bytes);
    uint32_t value;

    return read_decimal(word, bytes, &value) ? value : otherwise;
}
