package rainband.peers;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.storm.spout.SpoutOutputCollector;
import org.apache.storm.task.TopologyContext;

/** The lines of every file in a directory, held in memory and emitted round and round. */
final class LineSpout extends RootSpout {
  static final String LINES_DIR = "rainband.lines.dir";
  private transient String[] lines;
  private transient int[] words;

  LineSpout(boolean acking) {
    super("line", acking);
  }

  @Override
  public void open(Map<String, Object> conf, TopologyContext context, SpoutOutputCollector out) {
    lines = read(Path.of((String) conf.get(LINES_DIR)));
    words = new int[lines.length];
    for (int i = 0; i < lines.length; i++) {
      words[i] = Words.count(lines[i]);
    }
    super.open(conf, context, out);
  }

  private static String[] read(Path dir) {
    List<String> all = new ArrayList<>();
    try (var files = Files.list(dir)) {
      for (Path file : files.filter(path -> path.toString().endsWith(".txt")).sorted().toList()) {
        String text = Files.readString(file);
        int start = 0;
        for (int end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
          all.add(text.substring(start, end));
          start = end + 1;
        }
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return all.toArray(new String[0]);
  }

  @Override
  String value(long id) {
    return lines[(int) (id % lines.length)];
  }

  @Override
  long weight(long id) {
    return words[(int) (id % words.length)];
  }
}
