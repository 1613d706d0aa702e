/* web_pages.h - the page itself: web.html, web.css and web.js, which are inside the program. */
#ifndef MONITORD_WEB_PAGES_H
#define MONITORD_WEB_PAGES_H

#include <stddef.h>

struct web_page {
    const char *path, *type;
    const char *begin, *end; /* of its bytes */
};

/* NULL: there is none of that path. */
const struct web_page *web_page_find(const char *path);

#endif
