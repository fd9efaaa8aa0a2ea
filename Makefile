# make         the library: librawdb.so and librawdb.a, release build
# make install what CMake installs, in the same places: PREFIX=/usr/local DESTDIR= LIBDIR=lib
#              INCLUDEDIR=include DOCDIR=share/doc/rawdb PROFILE=release CARGO_FLAGS= DOC= ;
#              with DOC=yes the reference too
# make doc     the reference of the C interface as HTML, in target/doc-c/html; needs doxygen
# make test    everything that is tested, set-up included (may install Debian packages, needs root)
# make soak    the random tests of crashes, power loss and hostile files, for hours
# make bench   against peers, a quarter of an hour; writes docs/benchmarks.md; bench/src/main.rs says more
# make demo    builds the examples and runs them; filestore on this machine's own C headers
# make header  include/rawdb.h and the symbol list anew from src/ffi
# make abi     include/rawdb.abi anew, after an intended change of the binary interface
# make clean

SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL = all

CARGO ?= cargo
CFLAGS ?= -O2
WARNINGS = -Wall -Wextra -Wpedantic

target = $(or $(CARGO_TARGET_DIR),target)
release = $(target)/release
demo = $(target)/demo
tree = /usr/include

PREFIX ?= /usr/local
LIBDIR ?= lib
INCLUDEDIR ?= include
DOCDIR ?= share/doc/rawdb
PROFILE ?= release
CARGO_FLAGS ?=
OBJCOPY ?= objcopy
DOXYGEN ?= doxygen
DOC ?=
dist = $(target)/dist

.PHONY: all lib install doc test soak bench demo header abi clean

all: lib

lib:
	$(CARGO) rustc --release --lib --crate-type cdylib,staticlib

install: $(if $(DOC),doc)
	scripts/libraries "out=$(dist)/$(PROFILE)" "target_dir=$(dist)/cargo" "profile=$(PROFILE)" \
	    "cargo_flags=$(CARGO_FLAGS)" "prefix=$(PREFIX)" "libdir=$(LIBDIR)" \
	    "includedir=$(INCLUDEDIR)" "cargo=$(CARGO)" "cc=$(CC)" "ar=$(AR)" "objcopy=$(OBJCOPY)"
	place() { case $$1 in /*) echo "$(DESTDIR)$$1" ;; *) echo "$(DESTDIR)$(PREFIX)/$$1" ;; esac; }
	lib=$$(place "$(LIBDIR)") include=$$(place "$(INCLUDEDIR)") doc=$$(place "$(DOCDIR)")
	install -d "$$lib/pkgconfig" "$$lib/cmake/rawdb" "$$include" "$$doc"
	cp -df "$(dist)/$(PROFILE)"/librawdb.so* "$$lib"
	install -m 644 "$(dist)/$(PROFILE)/librawdb.a" "$$lib"
	install -m 644 "$(dist)/$(PROFILE)"/pkgconfig/* "$$lib/pkgconfig"
	install -m 644 "$(dist)/$(PROFILE)"/cmake/rawdb/* "$$lib/cmake/rawdb"
	install -m 644 include/rawdb.h include/rawdb.hpp "$$include"
	install -m 644 LICENSE-MIT LICENSE-APACHE "$$doc"
	[[ -z "$(DOC)" ]] || cp -R "$(target)/doc-c/html" "$$doc"

doc:
	scripts/reference "$(target)/doc-c" "$(DOXYGEN)"

test:
	scripts/test

soak:
	scripts/soak

# Linked to the library as it is shipped.
bench: lib
	RAWDB_LIBRARY_DIR=$(abspath $(release)) \
	    $(CARGO) run --release --locked --manifest-path bench/Cargo.toml --target-dir $(target)/bench

header:
	RAWDB_UPDATE_HEADER=1 $(CARGO) test --test header

abi:
	RAWDB_UPDATE_ABI=1 $(CARGO) test --test abi abi_is

clean:
	$(CARGO) clean

# What a program with librawdb.a in it needs besides; the linker leaves out what it does not use.
static_libs = -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc

$(demo)/%: examples_c/%.c include/rawdb.h lib
	mkdir -p $(demo)
	$(CC) -std=c99 $(CFLAGS) $(WARNINGS) -Iinclude -o $@ $< $(release)/librawdb.a $(static_libs)

demo: $(demo)/quickstart $(demo)/filestore
	@cd $(demo)
	rm -rf quickstart.db files.db
	usage() {
	    ./filestore files.db stat
	    stat -c '%n: %s bytes long, %b blocks of %B bytes' files.db/data files.db/regions
	    du -sh files.db
	}
	step() { printf '\n== %s\n' "$$*"; }

	step quickstart
	./quickstart quickstart.db

	step "storing $(tree)"
	time ./filestore files.db put $(tree)
	step "opening it again and comparing every byte"
	./filestore files.db verify $(tree)
	step "disk usage; the files themselves: $$(du -sh $(tree) | cut -f 1)"
	usage

	# Directories that have about a third of the files together.
	mapfile -t third < <(./filestore files.db ls | awk '{
	        n++
	        if (split($$2, part, "/") > 4) of["/" part[2] "/" part[3] "/" part[4] "/"]++
	    } END {
	        for (dir in of) print of[dir], dir, n
	    }' | sort -rn | awk '$$1 + sum <= $$3 * 0.36 { sum += $$1; print $$2 }')
	step "removing a third: $${third[*]}"
	./filestore files.db rm "$${third[@]}"
	step "comparing the rest"
	./filestore files.db verify $(tree) "$${third[@]}"
	step "disk usage before compaction"
	usage
	step "compaction"
	./filestore files.db compact
	step "disk usage after compaction"
	usage
	step "comparing the rest once more"
	./filestore files.db verify $(tree) "$${third[@]}"
	echo
	echo "demo: done"
