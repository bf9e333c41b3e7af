# A block is announced to be in the file before it is.
/^static int put_block/,/^}/{
s/^\tret = note_word(compressor, flushed, word);/\tshm_store_release(\&writer->entry->flushed, flushed + bytes);\n&/
}
