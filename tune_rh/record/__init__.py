"""What has happened: events in a journal, folded into a history; scores, ranks and the ranking follow from it."""
