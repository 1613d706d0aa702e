/* web_pages.c - see web_pages.h. The assembler takes the files in; the Makefile knows of it. */
#include "monitord/web_pages.h"

#include <string.h>

#define FILE_INSIDE(name, path)                                                                    \
    __asm__(".pushsection .rodata\n" #name "_begin:\n.incbin \"" path "\"\n" #name                 \
            "_end:\n.byte 0\n.popsection\n");                                                      \
    extern const char name##_begin[], name##_end[]

FILE_INSIDE(web_html, "monitord/web.html");
FILE_INSIDE(web_css, "monitord/web.css");
FILE_INSIDE(web_js, "monitord/web.js");

const struct web_page *web_page_find(const char *path)
{
    static const struct web_page pages[] = {
        {"/", "text/html; charset=utf-8", web_html_begin, web_html_end},
        {"/web.css", "text/css; charset=utf-8", web_css_begin, web_css_end},
        {"/web.js", "text/javascript; charset=utf-8", web_js_begin, web_js_end},
    };
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (strcmp(path, pages[i].path) == 0)
            return &pages[i];
    return NULL;
}
