#!/bin/sh
# Builds the libraries for C, and lays them out with header, pkg-config file and CMake files:
#
#   capi/install.sh PREFIX                    builds with cargo, and installs to PREFIX
#   capi/install.sh --archive FILE PREFIX     takes a libringwal_capi.a that was built before
#
# DESTDIR is put before PREFIX, for packages. CC is the C compiler. LIBDIR is the directory for
# libraries: below PREFIX if it is relative, PREFIX/lib by default.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
archive=
if [ "${1-}" = --archive ] && [ $# -ge 2 ]; then
    archive=$2
    shift 2
fi
if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
case $1 in
    /*) prefix=$1 ;;
    *) prefix=$(pwd)/$1 ;;
esac
libdir=${LIBDIR:-lib}
case $libdir in
    /*) ;;
    *) libdir=$prefix/$libdir ;;
esac
include=${DESTDIR-}$prefix/include
lib=${DESTDIR-}$libdir

version=$(sed -n 's/^version = "\([0-9.]*\)".*/\1/p' "$here/../Cargo.toml" | head -n 1)
series=${version%.*}
# What `rustc --print native-static-libs` says for this library.
case $(uname -s) in
    Linux) libs="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc" ;;
    Darwin) libs="-lSystem -lc -lm" ;;
    *) libs="-lpthread -lm -lc" ;;
esac

if [ -z "$archive" ]; then
    target=${CARGO_TARGET_DIR:-$here/../target}
    # cargo runs in another directory than this script.
    case $target in
        /*) ;;
        *) target=$(pwd)/$target ;;
    esac
    (cd "$here/.." && CARGO_TARGET_DIR=$target cargo build --release -p ringwal-capi)
    archive=$target/release/libringwal_capi.a
fi

mkdir -p "$include" "$lib/pkgconfig" "$lib/cmake/ringwal"
cp "$here/include/ringwal.h" "$here/include/ringwal.hpp" "$include/"
cp "$archive" "$lib/libringwal.a"

# rustc has a version script of its own for shared libraries, and a linker takes only one. So the
# shared library is linked here, from the static one.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $(uname -s) in
    Darwin)
        shared=libringwal.$series.dylib
        ${CC-cc} -dynamiclib -o "$lib/$shared" -install_name "$libdir/$shared" \
            -Wl,-force_load,"$archive" -Wl,-exported_symbol,'_ringwal_*' $libs
        ln -sf "$shared" "$lib/libringwal.dylib"
        ;;
    *)
        sed "s/@SERIES@/$series/" "$here/ringwal.map.in" >"$work/ringwal.map"
        soname=libringwal.so.$series
        ${CC-cc} -shared -o "$lib/libringwal.so.$version" -Wl,-soname,"$soname" \
            -Wl,--version-script="$work/ringwal.map" -Wl,--whole-archive "$archive" \
            -Wl,--no-whole-archive -Wl,--gc-sections -Wl,-z,relro,-z,now $libs
        ln -sf "libringwal.so.$version" "$lib/$soname"
        ln -sf "$soname" "$lib/libringwal.so"
        ;;
esac

fill() {
    sed -e "s|@PREFIX@|$prefix|g" -e "s|@LIBDIR@|$libdir|g" -e "s|@VERSION@|$version|g" \
        -e "s|@SERIES@|$series|g" -e "s|@LIBS@|$libs|g" \
        -e "s|@LIBLIST@|$(echo "$libs" | tr ' ' ';')|g" "$here/$1" >"$2"
}
fill ringwal.pc.in "$lib/pkgconfig/ringwal.pc"
fill ringwal-config.cmake.in "$lib/cmake/ringwal/ringwal-config.cmake"
fill ringwal-config-version.cmake.in "$lib/cmake/ringwal/ringwal-config-version.cmake"
echo "installed ringwal $version to $prefix"
