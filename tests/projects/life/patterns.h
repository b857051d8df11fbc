#pragma once

struct pattern {
    const char *name;
    const char *rows;
};

/* Ends with one without a name. */
extern const struct pattern patterns[];
