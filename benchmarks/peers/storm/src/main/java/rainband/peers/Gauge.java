package rainband.peers;

import java.util.concurrent.atomic.AtomicLongArray;

/** A number that one task writes and the meter reads: an ordinary store, alone on its cache lines. */
final class Gauge {
  private static final int CELL = 16;
  private final AtomicLongArray cells = new AtomicLongArray(2 * CELL);
  private long value;

  void add(long n) {
    value += n;
    cells.lazySet(CELL, value);
  }

  void set(long n) {
    value = n;
    cells.lazySet(CELL, n);
  }

  long read() {
    return cells.get(CELL);
  }
}
