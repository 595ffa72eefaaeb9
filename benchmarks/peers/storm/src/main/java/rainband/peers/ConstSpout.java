package rainband.peers;

/** The same short string for ever. */
final class ConstSpout extends RootSpout {
  ConstSpout(boolean acking) {
    super("value", acking);
  }

  @Override
  String value(long id) {
    return "some data";
  }

  @Override
  long weight(long id) {
    return 1;
  }
}
