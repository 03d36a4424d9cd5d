# What store.py calls in its folder on a device, behind `sum` and `size` of sums.py. For any POSIX shell; those of phones
# count to 2^31, so sizes are texts and places are numbers of blocks.

whole() { # FILE: its size and its sum, or "-"
  if [ -f "$1" ]; then echo "$(size "$1") $(sum <"$1")"; else echo -; fi
}

where() { # SHA256: the path of a file, or of its part
  if [ -f files/$1 ]; then echo files/$1; else echo parts/$1; fi
}

stored() { # SHA256: the folder that it lies in, and its size, or "-"
  if [ -f files/$1 ]; then
    touch files/$1
    echo "files $(size files/$1)"
  elif [ -f parts/$1 ]; then
    echo "parts $(size parts/$1)"
  else
    echo -
  fi
}

pieces() { # FILE BLOCKS COUNT: a line for each piece of so many blocks of 65,536 bytes: its sum, or "-"
  number=0
  while [ $number -lt $3 ]; do
    if [ -f "$1" ]; then dd if="$1" bs=65536 skip=$((number * $2)) count=$2 2>/dev/null | sum; else echo -; fi
    number=$((number + 1))
  done
}

program() { # SHA256: it may be executed
  chmod 555 files/$1 && [ -x files/$1 ] || {
    echo "chmod has no effect on files/$1" >&2
    exit 1
  }
}

place() { # SHA256 PATH: the file there, by the first way that the file system has
  ln files/$1 $2 2>/dev/null || ln -s "$(pwd)/files/$1" $2 2>/dev/null || cp -p files/$1 $2
}
