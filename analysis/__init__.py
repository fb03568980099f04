"""Reading what studies recorded: tables, statistics, figures, the report. No torch in here."""
