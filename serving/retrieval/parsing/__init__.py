"""From a file's bytes to headings, paragraphs, lists, tables and code."""
