# Writes broker/base/version.h at every build, touching it only when its text changes.
#
#   cmake -DSOURCE=<repository> -DOUTPUT=<version.h> -DNUMBER=0.1.0 -P tools/version.cmake
#
# The commit and its date come from git when SOURCE is the top of a work tree; otherwise from the file
# VERSION ("gabc1234 20260101"), which a packager writes; otherwise both are "unknown".
# SOURCE_DATE_EPOCH replaces the date.

set(FLARE_VERSION_NUMBER "${NUMBER}")
set(FLARE_COMMIT "unknown")
set(FLARE_COMMIT_DATE "unknown")

function(ask_git out)
    execute_process(COMMAND git -c "safe.directory=${SOURCE}" ${ARGN}
        WORKING_DIRECTORY "${SOURCE}" RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_QUIET
        OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT status EQUAL 0)
        set(text "")
    endif()
    set(${out} "${text}" PARENT_SCOPE)
endfunction()

set(ENV{TZ} UTC) # the date must not depend on where it is built
# A source archive unpacked inside some other repository must not take that one's commit.
ask_git(prefix rev-parse --is-inside-work-tree --show-prefix)
if(prefix STREQUAL "true")
    ask_git(commit log -1 --abbrev=7 --date=format-local:%Y%m%d "--format=g%h %cd")
elseif(EXISTS "${SOURCE}/VERSION")
    file(STRINGS "${SOURCE}/VERSION" commit LIMIT_COUNT 1)
endif()
if(commit MATCHES "^g([0-9a-f]+) ([0-9]+)$")
    set(FLARE_COMMIT "${CMAKE_MATCH_1}")
    set(FLARE_COMMIT_DATE "${CMAKE_MATCH_2}")
endif()
if(DEFINED ENV{SOURCE_DATE_EPOCH})
    string(TIMESTAMP FLARE_COMMIT_DATE "%Y%m%d" UTC) # CMake itself reads SOURCE_DATE_EPOCH here
endif()

# The version carries the commit as git describe writes it, with a g.
if(NOT FLARE_COMMIT STREQUAL "unknown")
    set(FLARE_VERSION "${NUMBER}+g${FLARE_COMMIT}.${FLARE_COMMIT_DATE}")
elseif(NOT FLARE_COMMIT_DATE STREQUAL "unknown")
    set(FLARE_VERSION "${NUMBER}+unknown.${FLARE_COMMIT_DATE}")
else()
    set(FLARE_VERSION "${NUMBER}+unknown")
endif()
configure_file("${SOURCE}/broker/base/version.h.in" "${OUTPUT}" @ONLY)
