package rainband.peers;

import org.apache.storm.generated.StormTopology;
import org.apache.storm.topology.TopologyBuilder;
import org.apache.storm.tuple.Fields;

/** The shapes that are compared. */
final class Topologies {
  private Topologies() {}

  static StormTopology named(String bench, boolean acking, String python) {
    switch (bench) {
      case "word-count":
        return wordCount(acking);
      case "word-count-shell":
        return shellWordCount(acking, python, "bolts.py");
      case "word-count-streamparse":
        return shellWordCount(acking, python, "streamparse_bolts.py");
      case "chain":
        return chain(acking);
      default:
        throw new IllegalArgumentException("no such benchmark: " + bench);
    }
  }

  private static StormTopology wordCount(boolean acking) {
    TopologyBuilder builder = new TopologyBuilder();
    builder.setSpout("lines", new LineSpout(acking), 1);
    builder.setBolt("split", new SplitBolt(), 2).shuffleGrouping("lines");
    builder.setBolt("count", new CountBolt(), 2).fieldsGrouping("split", new Fields("word"));
    return builder.createTopology();
  }

  private static StormTopology shellWordCount(boolean acking, String python, String script) {
    TopologyBuilder builder = new TopologyBuilder();
    builder.setSpout("lines", new LineSpout(acking), 1);
    builder.setBolt("split", new PipeBolt(python, script, "split", "word"), 2).shuffleGrouping("lines");
    builder.setBolt("count", new PipeBolt(python, script, "count"), 2).fieldsGrouping("split", new Fields("word"));
    return builder.createTopology();
  }

  private static StormTopology chain(boolean acking) {
    TopologyBuilder builder = new TopologyBuilder();
    builder.setSpout("const", new ConstSpout(acking), 1);
    builder.setBolt("id", new IdBolt(), 1).shuffleGrouping("const");
    builder.setBolt("null", new NullBolt(), 1).shuffleGrouping("id");
    return builder.createTopology();
  }
}
