/* Completion for zsh, as a function file of its own: _flare in a directory of $fpath. */
#include "tools/flare/completion.h"

static const char head[] =
    "#compdef flare\n"
    "# Completion of flare for zsh, made from its tables by: flare completion zsh\n"
    "# Put it as _flare into a directory of $fpath, or: source <(flare completion zsh)\n"
    "\n"
    "# Names that the broker or the file of contexts knows; nothing when they cannot be had.\n"
    "_flare_names() {\n"
    "    local -a names\n"
    "    names=(${(f)\"$(${(Q)words[1]/#\\~/$HOME} __complete \"$@\" $connection 2>/dev/null)\"})\n"
    "    compadd -a names\n"
    "}\n"
    "\n"
    "# What may stand for a word of kind $1.\n"
    "_flare_offer_kind() {\n"
    "    case $1 in\n"
    "    *'|'*) compadd -- ${(s:|:)1} ;;\n"
    "    TOPIC) _flare_names topics ;;\n"
    "    SUBSCRIPTION) _flare_names subscriptions \"$operands[1]\" ;;\n"
    "    CONTEXT) _flare_names contexts ;;\n"
    "    FILE | TARGET) _files ;;\n"
    "    DIR) _files -/ ;;\n"
    "    *) _message \"$1\" ;;\n"
    "    esac\n"
    "}\n"
    "\n";

static const char tail[] =
    "_flare() {\n"
    "    local current=$words[CURRENT] command= awaiting= value= place\n"
    "    local -a operands connection kinds options commands\n"
    "    _flare_walk\n"
    "    if [[ -n $awaiting ]]; then\n"
    "        _flare_value \"$command\" \"$awaiting\"\n"
    "        _flare_offer_kind \"$value\"\n"
    "    elif [[ $current == --*=* ]]; then\n"
    "        _flare_value \"$command\" \"${current%%=*}\"\n"
    "        compset -P '*='\n"
    "        _flare_offer_kind \"$value\"\n"
    "    elif [[ $current == -* ]]; then\n"
    "        _flare_options \"$command\"\n"
    "        _describe -o option options\n"
    "    else\n"
    "        _flare_commands \"$command\"\n"
    "        if (($#commands > 0)); then\n"
    "            _describe command commands\n"
    "            return\n"
    "        fi\n"
    "        _flare_operands \"$command\"\n"
    "        place=$(($#operands + 1))\n"
    "        ((place > $#kinds && $#kinds > 0)) && [[ $kinds[-1] == *... ]] && place=$#kinds\n"
    "        ((place <= $#kinds)) && _flare_offer_kind \"${kinds[place]%...}\"\n"
    "    fi\n"
    "}\n"
    "\n"
    "if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then\n"
    "    _flare \"$@\"\n"
    "else\n"
    "    compdef _flare flare\n"
    "fi\n";

/* 'word:text'; a colon of the word would end it. */
static void print_item(FILE *file, const char *word, const char *text)
{
    char item[1024];
    (void)snprintf(item, sizeof item, "%s:%s", word, text);
    completion_print_quoted(file, item, "'\\''");
    (void)fputc(' ', file);
}

void completion_print_zsh(FILE *file)
{
    (void)fputs(head, file);
    completion_print_tables(file, print_item);
    completion_print_walk(file, "    local word\n"
                                "    for word in \"${(@)words[2,CURRENT-1]}\"; do\n");
    (void)fputs(tail, file);
}
