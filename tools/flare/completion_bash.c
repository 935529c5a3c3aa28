/* Completion for bash. Words are told apart by spaces alone: bash itself splits them at colons and
 * equals signs too, of which a URL and an option are full. */
#include "tools/flare/completion.h"

static const char head[] =
    "# Completion of flare for bash, made from its tables by: flare completion bash\n"
    "# Try it with: source <(flare completion bash)\n"
    "\n"
    "# Names that the broker or the file of contexts knows; nothing when they cannot be had.\n"
    "_flare_names() {\n"
    "    \"${words[0]/#\\~/$HOME}\" __complete \"$@\" \"${connection[@]}\" 2>/dev/null\n"
    "}\n"
    "\n"
    "_flare_offer() {\n"
    "    mapfile -t COMPREPLY < <(compgen \"$@\" -- \"$current\")\n"
    "}\n"
    "\n"
    "# What may stand for a word of kind $1.\n"
    "_flare_offer_kind() {\n"
    "    case $1 in\n"
    "    *'|'*) _flare_offer -W \"${1//|/ }\" ;;\n"
    "    TOPIC) _flare_offer -W \"$(_flare_names topics)\" ;;\n"
    "    SUBSCRIPTION) _flare_offer -W \"$(_flare_names subscriptions \"${operands[0]}\")\" ;;\n"
    "    CONTEXT) _flare_offer -W \"$(_flare_names contexts)\" ;;\n"
    "    FILE | TARGET) compopt -o filenames 2>/dev/null; _flare_offer -f ;;\n"
    "    DIR) compopt -o filenames 2>/dev/null; _flare_offer -d ;;\n"
    "    esac\n"
    "}\n"
    "\n";

static const char tail[] =
    "_flare() {\n"
    "    local line=${COMP_LINE:0:COMP_POINT}\n"
    "    local current command= awaiting= value= place last\n"
    "    local words=() operands=() connection=() kinds=() options=() commands=()\n"
    "    COMPREPLY=()\n"
    "    read -ra words <<<\"$line\"\n"
    "    [[ $line == *[[:space:]] ]] && words+=('')\n"
    "    current=${words[${#words[@]} - 1]}\n"
    "    _flare_walk\n"
    "    if [[ -n $awaiting ]]; then\n"
    "        _flare_value \"$command\" \"$awaiting\"\n"
    "        _flare_offer_kind \"$value\"\n"
    "    elif [[ $current == --*=* ]]; then\n"
    "        _flare_value \"$command\" \"${current%%=*}\"\n"
    "        current=${current#*=}\n"
    "        _flare_offer_kind \"$value\"\n"
    "    elif [[ $current == -* ]]; then\n"
    "        _flare_options \"$command\"\n"
    "        _flare_offer -W \"${options[*]}\"\n"
    "    else\n"
    "        _flare_commands \"$command\"\n"
    "        if ((${#commands[@]} > 0)); then\n"
    "            _flare_offer -W \"${commands[*]}\"\n"
    "            return\n"
    "        fi\n"
    "        _flare_operands \"$command\"\n"
    "        place=${#operands[@]}\n"
    "        last=$((${#kinds[@]} - 1))\n"
    "        ((place > last && last >= 0)) && [[ ${kinds[last]} == *... ]] && place=$last\n"
    "        ((place <= last)) && _flare_offer_kind \"${kinds[place]%...}\"\n"
    "    fi\n"
    "    return 0\n"
    "}\n"
    "\n"
    "complete -F _flare flare\n";

static void print_item(FILE *file, const char *word, const char *text)
{
    (void)text; /* bash shows words only */
    (void)fprintf(file, "%s ", word);
}

void completion_print_bash(FILE *file)
{
    (void)fputs(head, file);
    completion_print_tables(file, print_item);
    completion_print_walk(file, "    local word index\n"
                                "    for ((index = 1; index < ${#words[@]} - 1; index++)); do\n"
                                "        word=${words[index]}\n");
    (void)fputs(tail, file);
}
