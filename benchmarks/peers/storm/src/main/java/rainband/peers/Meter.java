package rainband.peers;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CopyOnWriteArrayList;

/**
 * What the tasks of this worker JVM have counted, written whole to DIR/PID.json five times a second. Exact
 * where Storm's own statistics are sampled, and without a call to Nimbus inside the measuring window.
 */
final class Meter {
  static final String DIR = "rainband.meter.dir";
  private static final long PERIOD_MS = 200;
  private static Meter shared;
  private final Path file;
  private volatile boolean stopped;
  private final Map<String, List<Gauge>> gauges = new TreeMap<>();
  private final List<Latencies> latencies = new CopyOnWriteArrayList<>();

  private Meter(Path dir) {
    file = dir.resolve(ProcessHandle.current().pid() + ".json");
    Thread thread = new Thread(this::loop, "meter");
    thread.setDaemon(true);
    thread.start();
  }

  static synchronized Meter of(Map<String, Object> conf) {
    if (shared == null) {
      shared = new Meter(Path.of((String) conf.get(DIR)));
    }
    return shared;
  }

  /** Told to emit no more, by a file DIR/stop. Storm's own deactivate leaves what a spout could not yet hand on. */
  boolean stopped() {
    return stopped;
  }

  synchronized Gauge gauge(String name) {
    Gauge gauge = new Gauge();
    gauges.computeIfAbsent(name, key -> new CopyOnWriteArrayList<>()).add(gauge);
    return gauge;
  }

  Latencies latencies() {
    Latencies one = new Latencies();
    latencies.add(one);
    return one;
  }

  private synchronized String snapshot() {
    StringBuilder out = new StringBuilder("{\"time_ns\":").append(System.nanoTime());
    gauges.forEach((name, all) ->
        out.append(",\"").append(name).append("\":").append(all.stream().mapToLong(Gauge::read).sum()));
    out.append(",\"latency_us\":").append(latencies.isEmpty() ? "{}" : latencies.get(0).json());
    return out.append('}').toString();
  }

  private void loop() {
    try {
      Path partial = file.resolveSibling(file.getFileName() + ".tmp");
      while (true) {
        Files.writeString(partial, snapshot());
        Files.move(partial, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        stopped = Files.exists(file.resolveSibling("stop"));
        Thread.sleep(PERIOD_MS);
      }
    } catch (IOException | InterruptedException e) {
      throw new IllegalStateException("the meter stopped", e);
    }
  }
}
